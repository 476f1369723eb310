"""The contract of the `base_models` group: which members a pool has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from transfuse.base_models.recipe import Recipe
from transfuse.models.architecture import Architecture
from transfuse.randomness import derive_seed
from transfuse.training.progress import Budget
from transfuse.training.settings import Training
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, ProblemKind


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all members of a pool have in common: the run's data, model, training and seed.

    Attributes:
        fetch: copies what a URI of the tracking store names into a folder; gives the URI with an alias resolved, and
            the file or folder.
    """

    development: Development
    architecture: Architecture
    training: Training
    seed: int
    precision: str = "32-true"
    world_size: int = 1
    fetch: Callable[[str, Path], tuple[str, Path]] | None = None

    def recipe(self, name: str, *, seed: int) -> Recipe:
        """A member trained from a fresh initialization on the problem's own data."""
        return Recipe(
            name=name,
            architecture=self.architecture,
            development=self.development,
            seed=seed,
            training=self.training,
            precision=self.precision,
            world_size=self.world_size,
        )

    def budget(self) -> Budget:
        """The layout of `training` on the problem's training data."""
        return Budget.of(self.training, examples=len(self.development.train), world=self.world_size)

    def member_seed(self, index: int) -> int:
        """Seed of member `index`: hashed, so that no two members of any two runs share one by accident."""
        return derive_seed(self.seed, "member", index)


@dataclass(frozen=True, kw_only=True)
class Members:
    """An ordered pool before training: the members' recipes, and the start that they share, if any."""

    recipes: tuple[Recipe, ...]
    base: Recipe | None = None


@dataclass(frozen=True, kw_only=True)
class BaseModelRecipe(ABC):
    """A way to make a pool of base models.

    Attributes:
        refresh: train the members anew although they are in the store.
    """

    refresh: bool = False

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"single_task", "multi_task", "transfer"})

    @property
    def name(self) -> str:
        """The config's name, such as `seeds`."""
        return type(self).__module__.rpartition(".")[2]

    def members(self, setting: Setting) -> Members:
        """The pool's recipes for a problem; raises `IncompatibleStrategyError` where the pool makes no sense."""
        kind = setting.development.kind
        if kind not in self.problems:
            raise IncompatibleStrategyError(
                f"base_models={self.name} is for {' and '.join(sorted(self.problems))} problems. "
                f"Found data={setting.development.name}, a {kind} problem. Did you mean base_models=auto?"
            )
        return self.lay_out(setting)

    @abstractmethod
    def lay_out(self, setting: Setting) -> Members:
        """The recipes; the problem's kind fits."""


def require_count(count: int) -> None:
    """Raises unless a pool has at least one member."""
    if count < 1:
        raise HyperparameterError(f"`count` should be >= 1. Found `count = {count}`.")


def shortened(training: Training, share: float) -> Training:
    """The same settings with a share of the budget: at least one epoch or step."""
    if training.steps is not None:
        return replace(training, steps=max(1, round(training.steps * share)))
    assert training.epochs is not None
    return replace(training, epochs=max(1, round(training.epochs * share)))
