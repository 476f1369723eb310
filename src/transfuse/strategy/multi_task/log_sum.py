"""`multi_task/log_sum`: the sum of the losses' logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting, require_positive
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class LogSum(LossWeighting):
    """sum_t log(L_t + eps): each loss falls by the same share; independent of the losses' scales.

    Attributes:
        eps: added to each loss, > 0.

    Reference:
        The base of Lin et al. 2023, "Dual-Balancing for Multi-Task Learning", 2308.12029.
    """

    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eps > 0:
            raise HyperparameterError(f"`eps` should be > 0. Found `eps = {self.eps}`.")

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """sum_t log(L_t + eps)."""
        require_positive(losses_T, step, 0.0, self.name)
        return (losses_T + self.eps).log().sum()
