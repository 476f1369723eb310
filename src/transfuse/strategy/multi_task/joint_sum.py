"""`multi_task/joint_sum`: the plain sum of the tasks' losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class JointSum(LossWeighting):
    """min over theta of sum_t L_t(theta), theta shared (Caruana 1997): the reference of every balancer.

    Example:
        >>> import torch
        >>> JointSum().combine(torch.tensor([1.0, 2.0, 0.5])).item()
        3.5
    """

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t L_t."""
        return losses_T.sum()
