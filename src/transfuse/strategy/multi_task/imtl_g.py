"""`multi_task/imtl_g`: a direction with equal projections on all gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import GradientRule, NoSolutionError
from transfuse.strategy.multi_task.state import RuleState

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_RANK = 1e-10  # eigenvalues this much smaller than the largest are 0
_CANCELLED = 1e-8


@dataclass(frozen=True, kw_only=True)
class ImpartialGradient(GradientRule):
    """w = G^+ n / (1^T G^+ n), n the gradients' norms: the direction's cosine with every gradient is the same.

    Weights may be negative. It does not depend on the losses' scales.

    Reference:
        Liu et al. 2021, "Towards Impartial Multi-task Learning" (ICLR), in the form with the pseudo-inverse of
        2406.16232.
    """

    def factor(self, weights_T: Array) -> float:
        """Weights sum to 1."""
        return float(len(weights_T))

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Closed form."""
        return weigh_imtl_g(gramian_TT), 0.0


def weigh_imtl_g(gramian_TT: Array) -> Array:
    """`G^+ n / (1^T G^+ n)`, (T,), solved on the matrix of cosines.

    Raises:
        NoSolutionError: `1^T G^+ n` vanishes (opposite gradients).
    """
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    cosines_TT = gramian_TT / np.outer(norms_T, norms_T)
    weights_T = np.linalg.pinv(cosines_TT, rcond=_RANK, hermitian=True) @ np.ones(len(norms_T)) / norms_T
    total = weights_T.sum()
    if not abs(total) > _CANCELLED * np.abs(weights_T).sum():
        raise NoSolutionError
    found: Array = weights_T / total
    return found
