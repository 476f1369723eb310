"""`base_models=per_task`: one network a task of a multi-task problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.randomness import derive_seed
from transfuse.types import ProblemKind


@dataclass(frozen=True, kw_only=True)
class PerTask(BaseModelRecipe):
    """One member a task, with that task's head only.

    All backbones start from one random initialization, so that they can be fused in weight space; it is the pool's
    base. The networks are trained independently of each other.
    """

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})

    def lay_out(self, setting: Setting) -> Members:
        """The shared initialization, then one recipe a task."""
        start = replace(setting.recipe("per_task-start", seed=derive_seed(setting.seed, "start")), training=None)
        recipes = tuple(
            replace(
                setting.recipe(f"per_task-{task.name}", seed=derive_seed(setting.seed, "task", task.name)),
                development=setting.development.for_task(task.name),
                start=start,
            )
            for task in setting.development.tasks
        )
        return Members(recipes=recipes, base=start)
