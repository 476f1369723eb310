"""`base_models=source`: the source model of a transfer problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.recipe import Recipe
from transfuse.randomness import derive_seed
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError, ProblemKind


@dataclass(frozen=True, kw_only=True)
class Source(BaseModelRecipe):
    """One member, trained on the source data, of which there is often more than of the target's.

    Attributes:
        epochs: passes over the source data; null: see `steps`.
        steps: optimizer steps; null, where `epochs` is too: the run's `training`.
        batch_size: examples of a step; null: the run's.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise HyperparameterError(
                f"At most one of `epochs` and `steps` should be set. "
                f"Found `epochs = {self.epochs}`, `steps = {self.steps}`."
            )
        for field, value in (("epochs", self.epochs), ("steps", self.steps), ("batch_size", self.batch_size)):
            if value is not None and value < 1:
                raise HyperparameterError(f"`{field}` should be >= 1 or null. Found `{field} = {value}`.")

    def lay_out(self, setting: Setting) -> Members:
        """The source model's recipe."""
        recipe = source_recipe(setting)
        return Members(recipes=(replace(recipe, training=self._training(setting.training)),))

    def _training(self, training: Training) -> Training:
        if self.batch_size is not None:
            training = replace(training, batch_size=self.batch_size)
        if self.epochs is None and self.steps is None:
            return training
        return replace(training, epochs=self.epochs, steps=self.steps)


def source_recipe(setting: Setting) -> Recipe:
    """A model of the run's architecture and training, on the source data."""
    source = setting.development.source
    assert source is not None, "the pool is for transfer problems"
    recipe = setting.recipe("source", seed=derive_seed(setting.seed, "source"))
    return replace(recipe, development=source, trained_on="source")
