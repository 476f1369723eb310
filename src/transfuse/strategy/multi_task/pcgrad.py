"""`multi_task/pcgrad`: conflicting components of gradients are projected away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class PCGrad(GradientRule):
    """Each gradient loses what conflicts with each other task's original gradient; then they are summed.

    For each task i, `c = e_i`; for each j != i in turn, `a = G_j . c`; where a < 0, `c_j -= a / G_jj`; `w = sum_i c`.

    Attributes:
        order: in which the other tasks are visited: `random` in each step, or `fixed`.

    Example:
        >>> PCGrad().weigh(torch.tensor([[1.0, -0.5], [-0.5, 1.0]]))
        tensor([1.5000, 1.5000], dtype=torch.float64)

    Reference:
        Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", 2001.06782. Peers that average are 1/T of this.
    """

    order: str = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("random", "fixed"):
            raise HyperparameterError(f"`order` should be random or fixed. Found `order = {self.order}`.")

    def factor(self, weights_T: Array) -> float:
        """The paper sums."""
        return 1.0

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Projections in the order of this step."""
        return weigh_pcgrad(gramian_TT, visiting(len(gramian_TT), step, fixed=self.order == "fixed")), 0.0


def weigh_pcgrad(gramian_TT: Array, orders: Sequence[Sequence[int]]) -> Array:
    """Weights (T,) of the sum of projected gradients.

    Args:
        gramian_TT: (T, T) inner products of the gradients, diagonal above 0.
        orders: row i holds the tasks in the order in which gradient i meets them; i itself is skipped.
    """
    coefficients_TT = np.eye(len(gramian_TT))
    for own, order in enumerate(orders):
        coefficients = coefficients_TT[own]
        for other in order:
            inner = gramian_TT[other] @ coefficients
            if other != own and inner < 0:
                coefficients[other] -= inner / gramian_TT[other, other]
    total: Array = coefficients_TT.sum(0)
    return total


def visiting(tasks: int, step: StepInfo, *, fixed: bool) -> list[list[int]]:
    """For each task the order in which it meets the tasks: given, fixed (0, 1, ...) or random."""
    if step.orders is not None:
        return [list(order) for order in step.orders]
    if fixed:
        return [list(range(tasks))] * tasks
    return [torch.randperm(tasks, generator=step.generator).tolist() for _ in range(tasks)]
