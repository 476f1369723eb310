"""`base_models=per_task`: one network a task of a multi-task problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transfuse.base_models.base import BaseModelRecipe, Members, Setting, shortened
from transfuse.randomness import derive_seed
from transfuse.types import HyperparameterError, ProblemKind


@dataclass(frozen=True, kw_only=True)
class PerTask(BaseModelRecipe):
    """One member a task, with that task's head only.

    All backbones start from the same weights, so that they can be fused in weight space; these are the pool's base. The
    networks are trained independently of each other, each on the examples that are labelled for its task.

    Attributes:
        start_share: share of the training budget for the shared start, trained on all tasks together, in [0, 1]; 0: a
            random initialization. Fusions in weight space need a trained start.
    """

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})

    start_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start_share <= 1:
            raise HyperparameterError(f"`start_share` should be in [0, 1]. Found `start_share = {self.start_share}`.")

    def lay_out(self, setting: Setting) -> Members:
        """The shared start, then one recipe a task, all of one backbone."""
        setting = replace(setting, architecture=setting.architecture.hard)
        start = replace(
            setting.recipe("per_task-start", seed=derive_seed(setting.seed, "start")),
            training=shortened(setting.training, self.start_share) if self.start_share > 0 else None,
        )
        recipes = tuple(
            replace(
                setting.recipe(f"per_task-{task.name}", seed=derive_seed(setting.seed, "task", task.name)),
                development=setting.development.for_task(task.name),
                start=start,
            )
            for task in setting.development.tasks
        )
        return Members(recipes=recipes, base=start)
