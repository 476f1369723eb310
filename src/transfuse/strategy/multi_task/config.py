"""`multi_task/config`: a direction that conflicts with no gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfuse.strategy.multi_task.base import Array, PerTask, of_tasks
from transfuse.strategy.multi_task.gradient_rule import GradientRule, NoSolutionError
from transfuse.strategy.multi_task.state import RuleState

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_RANK = 1e-10  # eigenvalues this much smaller than the largest are 0


@dataclass(frozen=True, kw_only=True)
class ConFIG(GradientRule):
    """w = (1^T G a) / (a^T G a) a with a_t = (K^+ p)_t / n_t, K the cosines, n the norms of the gradients.

    Its cosines with the gradients go by p, and its length is that of the sum of the gradients' projections on it.

    Attributes:
        preference: p, one number >= 0 a task; None: 1 each.

    Reference:
        Liu et al. 2024, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", 2408.11104.
    """

    preference: PerTask | None = None

    def per_task(self) -> Mapping[str, PerTask | None]:
        """One number a task."""
        return {"preference": self.preference}

    def factor(self, weights_T: Array) -> float:
        """The paper sums."""
        return 1.0

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Closed form."""
        return weigh_config(gramian_TT, of_tasks(self.preference, step.names, step.tasks, 1.0)), 0.0


def weigh_config(gramian_TT: Array, preference_T: Array) -> Array:
    """`(1^T G a) / (a^T G a) a`, (T,).

    Raises:
        NoSolutionError: the direction vanishes (opposite gradients).
    """
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    cosines_TT = gramian_TT / np.outer(norms_T, norms_T)
    # in units of the gradients' norms: J = diag(n) U
    unit_T = np.linalg.pinv(cosines_TT, rcond=_RANK, hermitian=True) @ preference_T
    length = unit_T @ cosines_TT @ unit_T
    if not length > _RANK * (unit_T @ unit_T):
        raise NoSolutionError
    weights_T: Array = (norms_T @ cosines_TT @ unit_T) / length * unit_T / norms_T
    return weights_T
