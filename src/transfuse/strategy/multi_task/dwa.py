"""`multi_task/dwa`: losses that fall slowly weigh more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class DynamicWeightAverage(LossWeighting):
    """w = T softmax(r / tau), r_t = (mean L_t of the last epoch) / (that of the one before); ones for two epochs.

    Attributes:
        temperature: tau, > 0; larger is more even.

    Reference:
        Liu, Johns & Davison 2019, "End-to-End Multi-Task Learning with Attention", 1803.10704.
    """

    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise HyperparameterError(f"`temperature` should be > 0. Found `temperature = {self.temperature}`.")

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t w_t L_t."""
        if len(step.epoch_means) < 2:
            return losses_T.sum()
        rates_T = torch.from_numpy(step.means(-1) / step.means(-2))
        weights_T = len(losses_T) * (rates_T / self.temperature).softmax(0)
        return (weights_T.to(losses_T) * losses_T).sum()
