"""`multi_task/static`: fixed weights of the losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.base import PerTask, check_weights, of_tasks
from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class StaticWeights(LossWeighting):
    """sum_t a_t L_t with fixed weights a.

    Attributes:
        weights: a, task -> number >= 0, not all 0; required.
        normalize: whether the weights are scaled to sum to the number of tasks.

    Example:
        >>> StaticWeights(weights=[1.0, 3.0]).combine(torch.tensor([1.0, 2.0])).item()
        3.5
    """

    weights: PerTask | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is None:
            raise HyperparameterError(
                "`weights` should have a number for each task. Found none. Write 'strategy.weights={task: 1.0, ...}'."
            )
        check_weights("weights", list(self.weights.values() if isinstance(self.weights, Mapping) else self.weights))

    def per_task(self) -> Mapping[str, PerTask | None]:
        """One number a task."""
        return {"weights": self.weights}

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t a_t L_t."""
        every_T = of_tasks(self.weights, step.names, step.names, 1.0)
        weights_T = of_tasks(self.weights, step.names, step.tasks, 1.0)
        if self.normalize:
            weights_T = weights_T * len(every_T) / every_T.sum()
        return (torch.from_numpy(weights_T).to(losses_T) * losses_T).sum()
