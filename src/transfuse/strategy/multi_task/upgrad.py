"""`multi_task/upgrad`: every gradient is projected onto the dual cone of all, then they are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.dual_cone import DualConeRule, project


@dataclass(frozen=True, kw_only=True)
class UPGrad(DualConeRule):
    """w = sum_t proj(p_t e_t): no task gets worse, to first order, and each has its share.

    Attributes:
        preference: p, one number >= 0 a task; None: 1 / T each.
        reg_eps: regularization relative to the trace, >= 0. Peers take 1e-4, which loses the guarantee where the
            gradients' norms are far apart; 0 solves on the matrix of cosines.

    Reference:
        Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization", 2406.16232.
    """

    def weigh_all(self, gramian_TT: Array, preference_T: Array) -> Array:
        """Projections, exact."""
        return weigh_upgrad(gramian_TT, preference_T, self.reg_eps)


def weigh_upgrad(gramian_TT: Array, preference_T: Array, reg_eps: float = 0.0) -> Array:
    """`sum_t proj(p_t e_t)`, (T,)."""
    total: Array = project(gramian_TT, np.diag(preference_T), reg_eps).sum(axis=0)
    return total
