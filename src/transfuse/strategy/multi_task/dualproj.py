"""`multi_task/dualproj`: the average gradient is projected onto the dual cone of all."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.dual_cone import DualConeRule, project


@dataclass(frozen=True, kw_only=True)
class DualProj(DualConeRule):
    """w = proj(p): the shortest change of the average that makes no task worse, to first order.

    Attributes:
        preference: p, one number >= 0 a task; None: 1 / T each.
        reg_eps: regularization relative to the trace, >= 0. Peers take 1e-4, which loses the guarantee where the
            gradients' norms are far apart; 0 solves on the matrix of cosines.

    Reference:
        Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization", 2406.16232.
    """

    def weigh_all(self, gramian_TT: Array, preference_T: Array) -> Array:
        """Projections, exact."""
        return weigh_dualproj(gramian_TT, preference_T, self.reg_eps)


def weigh_dualproj(gramian_TT: Array, preference_T: Array, reg_eps: float = 0.0) -> Array:
    """`proj(p)`, (T,)."""
    return project(gramian_TT, preference_T, reg_eps)
