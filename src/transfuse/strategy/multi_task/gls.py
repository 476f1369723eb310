"""`multi_task/gls`: the geometric mean of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from transfuse.strategy.multi_task.loss_weighting import LossWeighting, require_positive
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class GeometricLoss(LossWeighting):
    """(prod_t L_t)^(1/T): independent of the losses' scales; a loss near 0 takes all the weight.

    Attributes:
        eps: the smallest loss that the logarithm sees, > 0.

    Reference:
        Chennupati et al. 2019, "MultiNet++", 1904.08492.
    """

    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eps > 0:
            raise HyperparameterError(f"`eps` should be > 0. Found `eps = {self.eps}`.")

    def factor(self, tasks: int) -> float:
        """The mean of equal losses weighs each by 1 / T."""
        return float(tasks)

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """exp(mean_t log L_t): a product would underflow."""
        require_positive(losses_T, step, 0.0, self.name)
        return losses_T.clamp(min=self.eps).log().mean().exp()
