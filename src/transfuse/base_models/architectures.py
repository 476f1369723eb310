"""`base_models=architectures`: members of different architectures, for output fusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.recipe import Recipe
from transfuse.models.architecture import Architecture
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Architectures(BaseModelRecipe):
    """One member an architecture, each with an initialization and a batch order of its own.

    All are trained alike, and all predict the problem's tasks with its classes in its order. The run's `model` is not
    among them unless it is named.

    Attributes:
        models: name of a member -> its architecture, in order.
    """

    models: Mapping[str, Architecture] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise HyperparameterError("`models` should name at least one architecture. Found none.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe an architecture; one that does not fit the data is told here."""
        items = enumerate(self.models.items())
        return Members(recipes=tuple(_member(setting, index, *item) for index, item in items))


def _member(setting: Setting, index: int, name: str, architecture: Architecture) -> Recipe:
    recipe = setting.recipe(f"architectures-{name}", seed=setting.member_seed(index))
    recipe = replace(recipe, architecture=architecture)
    recipe.build()
    return recipe
