"""Projection onto the dual cone of gradients: what UPGrad and DualProj share.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from transfuse.strategy.multi_task.base import Array, PerTask, of_tasks
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class DualConeRule(GradientRule, ABC):
    """A rule that projects onto the dual cone: no task gets worse, to first order.

    Attributes:
        preference: p, one number >= 0 a task; None: 1 / T each.
        reg_eps: regularization relative to the trace, >= 0. Peers take 1e-4, which loses the guarantee where the
            gradients' norms are far apart; 0 solves on the matrix of cosines.
    """

    preference: PerTask | None = None
    reg_eps: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.reg_eps >= 0:
            raise HyperparameterError(f"`reg_eps` should be >= 0. Found `reg_eps = {self.reg_eps}`.")

    def per_task(self) -> Mapping[str, PerTask | None]:
        """One number a task."""
        return {"preference": self.preference}

    def factor(self, weights_T: Array) -> float:
        """The paper averages."""
        return float(len(weights_T))

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Exact."""
        return self.weigh_all(gramian_TT, of_tasks(self.preference, step.names, step.tasks, 1.0 / len(gramian_TT))), 0.0

    @abstractmethod
    def weigh_all(self, gramian_TT: Array, preference_T: Array) -> Array:
        """The method's weights (T,) under a preference (T,)."""


def project(gramian_TT: Array, weights_T: Array, reg_eps: float = 0.0) -> Array:
    """`argmin v^T G v, v >= u`: the shortest combination that gives each row at least its weight `u`.

    With `v = u + s`, `s >= 0`, this is non-negative least squares `min ||R v||`, `R^T R` = the matrix of cosines; `u`
    and `v` are scaled by the gradients' norms before and after, so that norms far apart do no harm.

    Args:
        gramian_TT: (T, T), diagonal above 0; may be singular.
        weights_T: u, (T,) >= 0; or (K, T), each row projected by itself.
        reg_eps: share of the identity added to the Gramian over its trace, as peers do; 0 solves on the cosines.

    Returns:
        v, of the same shape.

    Reference:
        Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization", 2406.16232.
    """
    if reg_eps > 0:
        trace = np.trace(gramian_TT)
        gramian_TT = gramian_TT / trace + reg_eps * np.eye(len(gramian_TT))
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    values_T, vectors_TT = np.linalg.eigh(gramian_TT / np.outer(norms_T, norms_T))
    root_TT = np.sqrt(np.maximum(values_T, 0.0))[:, None] * vectors_TT.T
    # lengths relative to the longest: no product of far-apart norms
    lengths_T = norms_T / norms_T.max()
    found = []
    for start_T in np.atleast_2d(weights_T) * lengths_T:
        # min ||R (u + s)||, s >= 0
        added_T, _ = nnls(root_TT, -root_TT @ start_T)
        found.append((start_T + added_T) / lengths_T)
    return np.array(found).reshape(weights_T.shape)
