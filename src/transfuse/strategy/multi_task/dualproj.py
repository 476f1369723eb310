"""`multi_task/dualproj`: the average gradient is projected onto the dual cone of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfuse.strategy.multi_task.base import Array, PerTask, of_tasks
from transfuse.strategy.multi_task.dual_cone import project
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class DualProj(GradientRule):
    """w = proj(p): the shortest change of the average that makes no task worse, to first order.

    Attributes:
        preference: p, one number >= 0 a task; None: 1 / T each.
        reg_eps: regularization relative to the trace, >= 0. Peers take 1e-4, which loses the guarantee where the
            gradients' norms are far apart; 0 solves on the matrix of cosines.

    Reference:
        Quinton & Rey 2024, "Jacobian Descent for Multi-Objective Optimization", 2406.16232.
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
        """Projections, exact."""
        tasks = len(gramian_TT)
        preference_T = of_tasks(self.preference, step.names, step.tasks, 1.0 / tasks)
        return weigh_dualproj(gramian_TT, preference_T, self.reg_eps), 0.0


def weigh_dualproj(gramian_TT: Array, preference_T: Array, reg_eps: float = 0.0) -> Array:
    """`proj(p)`, (T,)."""
    return project(gramian_TT, preference_T, reg_eps)
