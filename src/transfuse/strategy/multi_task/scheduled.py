"""`multi_task/scheduled`: weights that go from one set to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.multi_task.base import PerTask, check_weights, of_tasks
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class ScheduledWeights(LossWeighting):
    """sum_t a_t L_t, a = (1 - u) start + u end, u from 0 in the first epoch to 1 after `epochs` epochs.

    Attributes:
        start: task -> number >= 0; required.
        end: task -> number >= 0; required.
        epochs: how long it takes, >= 1.
        shape: `linear`: u = e / epochs; `cosine`: u = (1 - cos(pi e / epochs)) / 2.

    Example:
        >>> ScheduledWeights(start=[1.0, 0.0], end=[1.0, 1.0], epochs=10).combine(torch.tensor([1.0, 2.0])).item()
        1.0
    """

    start: PerTask | None = None  # type: ignore[assignment]  # the training is laid out by `arm`
    end: PerTask | None = None
    epochs: int = 10
    shape: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in self.per_task().items():
            if values is None:
                raise HyperparameterError(
                    f"`{name}` should have a number for each task. Found none. "
                    f"Write 'strategy.{name}={{task: 1.0, ...}}'."
                )
            check_weights(name, list(values.values() if isinstance(values, Mapping) else values))
        if self.epochs < 1:
            raise HyperparameterError(f"`epochs` should be >= 1. Found `epochs = {self.epochs}`.")
        if self.shape not in ("linear", "cosine"):
            raise HyperparameterError(f"`shape` should be linear or cosine. Found `shape = {self.shape}`.")

    def per_task(self) -> Mapping[str, PerTask | None]:
        """Two numbers a task."""
        return {"start": self.start, "end": self.end}

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t a_t L_t."""
        start_T, end_T = (of_tasks(values, step.names, step.tasks, 1.0) for values in (self.start, self.end))
        u = min(step.epoch / self.epochs, 1.0)
        if self.shape == "cosine":
            u = (1 - math.cos(math.pi * u)) / 2
        return (torch.from_numpy((1 - u) * start_T + u * end_T).to(losses_T) * losses_T).sum()

    def apply(self, context: Context) -> FusedModel:
        """Trains to the end of the budget."""
        arm = self.arm(context)
        arm.advance(arm.total_steps)
        return arm.finish()
