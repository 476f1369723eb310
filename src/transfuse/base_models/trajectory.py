"""`base_models=trajectory`: checkpoints along one training, to average (1803.05407, 2209.14981) or to fuse."""

from __future__ import annotations

from dataclasses import dataclass, replace

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.cycles import taken_at
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Trajectory(BaseModelRecipe):
    """Members of one training with the run's own settings, its end among them.

    All members together cost one training. Their order is that of the training.

    Attributes:
        every: epochs between two members, >= 1, counted back from the end.
        start: share of the training before which no member is taken, in [0, 1).
        last: how many members at most, the last ones, >= 1; None for all.
    """

    every: int = 1
    start: float = 0.5
    last: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise HyperparameterError(f"`every` should be >= 1. Found `every = {self.every}`.")
        if not 0 <= self.start < 1:
            raise HyperparameterError(f"`start` should be in [0, 1). Found `start = {self.start}`.")
        if self.last is not None and self.last < 1:
            raise HyperparameterError(f"`last` should be >= 1. Found `last = {self.last}`.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a checkpoint."""
        budget = setting.budget()
        stride, first = self.every * budget.epoch_steps, max(self.start * budget.total_steps, 1)
        steps = [step for step in range(budget.total_steps, 0, -stride) if step >= first][: self.last][::-1]
        training = replace(setting.training, patience=None, keep="last")
        run = replace(setting.recipe("trajectory", seed=setting.member_seed(0)), training=training)
        return Members(recipes=taken_at(run, steps))
