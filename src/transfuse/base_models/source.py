"""`base_models=source`: the source model of a transfer problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.recipe import Recipe
from transfuse.randomness import derive_seed
from transfuse.types import ProblemKind


@dataclass(frozen=True, kw_only=True)
class Source(BaseModelRecipe):
    """One member, trained on the source data."""

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    def lay_out(self, setting: Setting) -> Members:
        """The source model's recipe."""
        return Members(recipes=(source_recipe(setting),))


def source_recipe(setting: Setting) -> Recipe:
    """A model of the run's architecture and training, on the source data."""
    source = setting.development.source
    assert source is not None, "the pool is for transfer problems"
    recipe = setting.recipe("source", seed=derive_seed(setting.seed, "source"))
    return replace(recipe, development=source, trained_on="source")
