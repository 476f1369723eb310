"""`multi_task/fairgrad`: alpha-fair utilities of the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.fair_newton import solve_fair
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class FairGrad(GradientRule):
    """w > 0 with (G w)_t = w_t^(-1/alpha).

    Attributes:
        alpha: fairness, > 0; 1 is proportional fairness (Nash-MTL without a norm limit), towards 0 the plain sum.

    Example:
        >>> import torch
        >>> FairGrad(scale="published", alpha=0.5).weigh(torch.diag(torch.tensor([1.0, 8.0])))
        tensor([1.0000, 0.5000], dtype=torch.float64)

    Reference:
        Ban & Ji 2024, "Fair Resource Allocation in Multi-Task Learning", 2402.15638.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise HyperparameterError(f"`alpha` should be > 0. Found `alpha = {self.alpha}`.")

    def factor(self, weights_T: Array) -> float:
        """Weights sum to T."""
        return float(len(weights_T) / weights_T.sum())

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Newton, to rounding."""
        return solve_fair(gramian_TT, self.alpha)
