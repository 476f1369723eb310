"""`multi_task/mgda`: the shortest vector in the convex hull of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule, NoSolutionError
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError, NeedsContextError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_NORMALIZE = ("none", "l2", "loss", "loss_l2")


@dataclass(frozen=True, kw_only=True)
class MGDA(GradientRule):
    """w = argmin over the simplex of w^T G w: every task improves, until no direction does that for all.

    Without normalization it follows the smallest gradient.

    Attributes:
        normalize: gradients before the rule, which are divided by: `none`, `l2` (their norms), `loss` (their losses),
            `loss_l2` (both).

    Reference:
        Desideri 2012; Sener & Koltun 2018, "Multi-Task Learning as Multi-Objective Optimization", 1810.04650.
    """

    normalize: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalize not in _NORMALIZE:
            raise HyperparameterError(
                f"`normalize` should be {', '.join(_NORMALIZE)}. Found `normalize = {self.normalize}`."
            )

    def factor(self, weights_T: Array) -> float:
        """Weights sum to 1."""
        return float(len(weights_T))

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """The minimum-norm point, exact."""
        divisors_T = np.ones(len(gramian_TT))
        if "l2" in self.normalize:
            divisors_T = divisors_T * np.sqrt(np.diagonal(gramian_TT))
        if "loss" in self.normalize:
            if step.losses_T is None:
                raise NeedsContextError(f"`normalize = {self.normalize}` divides by losses: `losses_T` is missing.")
            divisors_T = divisors_T * step.losses_T.numpy()
        return weigh_mgda(gramian_TT / np.outer(divisors_T, divisors_T)) / divisors_T, 0.0


def weigh_mgda(gramian_TT: Array) -> Array:
    """The minimum-norm point of the convex hull: `argmin ||J^T w||, w >= 0, sum w = 1`, (T,).

    As non-negative least squares `[R; 1^T] a = [0; 1]` with `R^T R = G` over its largest entry; `w = a / sum a`. A tiny
    ridge picks the weights of least norm where there are several.
    """
    tasks = len(gramian_TT)
    values_T, vectors_TT = np.linalg.eigh(gramian_TT / np.diagonal(gramian_TT).mean())
    root_TT = np.sqrt(np.maximum(values_T, 0.0))[:, None] * vectors_TT.T
    system = np.vstack([root_TT, np.ones((1, tasks)), 1e-8 * np.eye(tasks)])
    found_T, _ = nnls(system, np.concatenate([np.zeros(tasks), [1.0], np.zeros(tasks)]))
    total = found_T.sum()
    if not total > 0:
        raise NoSolutionError
    weights_T: Array = found_T / total
    return weights_T
