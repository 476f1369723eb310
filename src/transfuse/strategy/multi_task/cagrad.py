"""`multi_task/cagrad`: near the average gradient, the direction that serves the worst-off task best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule, NoSolutionError
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_SMALL = 1e-12  # of the mean squared gradient: a mixture this short has no direction


@dataclass(frozen=True, kw_only=True)
class CAGrad(GradientRule):
    """w = 1/T + (c ||g0|| / ||J^T v||) v: max over d of min_t <g_t, d>, where ||d - g0|| <= c ||g0||.

    g0 is the average gradient; v minimizes `v^T G u + c ||g0|| sqrt(v^T G v)` over the simplex, u = 1/T.

    Attributes:
        c: radius around the average gradient, relative to its norm, >= 0; 0 is the average.
        rescale: under `scale=published` the direction is divided by 1 (`0`), 1 + c^2 (`1`) or 1 + c (`2`).

    Reference:
        Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", 2110.14048.
    """

    c: float = 0.5
    rescale: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.c < math.inf:
            raise HyperparameterError(f"`c` should be >= 0. Found `c = {self.c}`.")
        if self.rescale not in (0, 1, 2):
            raise HyperparameterError(f"`rescale` should be 0, 1 or 2. Found `rescale = {self.rescale}`.")

    def factor(self, weights_T: Array) -> float:
        """Of equal gradients the direction is 1 + c times their mean."""
        return len(weights_T) / (1.0 + self.c)

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Sequential least squares on the dual problem."""
        weights_T = weigh_cagrad(gramian_TT, self.c)
        if self.scale == "published":
            weights_T = weights_T / (1.0, 1.0 + self.c**2, 1.0 + self.c)[self.rescale]
        return weights_T, 0.0


def weigh_cagrad(gramian_TT: Array, c: float) -> Array:
    """`1/T + (c ||g0|| / ||J^T v||) v`, (T,).

    Raises:
        NoSolutionError: some mixture of the gradients vanishes, so that no direction serves all.
    """
    tasks = len(gramian_TT)
    even_T = np.full(tasks, 1.0 / tasks)
    inner_TT = gramian_TT / np.diagonal(gramian_TT).mean()
    radius = c * math.sqrt(max(even_T @ inner_TT @ even_T, 0.0))
    if radius == 0.0:
        return even_T
    pull_T = inner_TT @ even_T

    def dual(mixture_T: Array, /, *_: Any) -> tuple[float, Array]:
        product_T = inner_TT @ mixture_T
        length = math.sqrt(max(mixture_T @ product_T, _SMALL**2))
        return float(mixture_T @ pull_T + radius * length), pull_T + radius * product_T / length

    found = minimize(
        dual,
        even_T,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * tasks,
        constraints=LinearConstraint(np.ones((1, tasks)), 1.0, 1.0),
        options={"ftol": 1e-15, "maxiter": 500},
    )
    mixture_T = np.maximum(found.x, 0.0)
    mixture_T = mixture_T / mixture_T.sum()
    length = math.sqrt(max(mixture_T @ inner_TT @ mixture_T, 0.0))
    if not length > math.sqrt(_SMALL):
        raise NoSolutionError
    weights_T: Array = even_T + radius / length * mixture_T
    return weights_T
