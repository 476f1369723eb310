"""`multi_task/rlw`: random weights in every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class RandomLossWeighting(LossWeighting):
    """w = softmax(z), z ~ N(0, I) anew in every step: the plain sum on average.

    Reference:
        Lin et al. 2022, "Reasonable Effectiveness of Random Weighting", 2111.10603.
    """

    def factor(self, tasks: int) -> float:
        """Weights sum to 1."""
        return float(tasks)

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t w_t L_t."""
        weights_T = torch.randn(len(losses_T), generator=step.generator).softmax(0)
        return (weights_T.to(losses_T) * losses_T).sum()
