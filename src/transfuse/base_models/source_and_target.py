"""`base_models=source_and_target`: the source model, and one trained on the target data alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.source import source_recipe
from transfuse.types import ProblemKind


@dataclass(frozen=True, kw_only=True)
class SourceAndTarget(BaseModelRecipe):
    """Two members, for output or weight fusion of old and new knowledge."""

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    def lay_out(self, setting: Setting) -> Members:
        """The source model, then the target model."""
        return Members(recipes=(source_recipe(setting), setting.recipe("target", seed=setting.member_seed(0))))
