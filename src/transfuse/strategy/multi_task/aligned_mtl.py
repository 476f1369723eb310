"""`multi_task/aligned_mtl`: the gradients' principal components get equal length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfuse.strategy.multi_task.base import Array, PerTask, of_tasks
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_MODES = ("min", "median", "rmse")


@dataclass(frozen=True, kw_only=True)
class AlignedMTL(GradientRule):
    """w = sqrt(s) V diag(l^-1/2) V^T p for G = V diag(l) V^T: aligned gradients are orthogonal and of one length.

    Attributes:
        scale_mode: s of the eigenvalues that are kept: `min`, `median` (the lower of the two middle ones) or `rmse`
            (their mean).
        preference: p, one number >= 0 a task; None: 1 / T each.

    Reference:
        Senushkin et al. 2023, "Independent Component Alignment for Multi-Task Learning", 2305.19000.
    """

    scale_mode: str = "min"
    preference: PerTask | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_mode not in _MODES:
            raise HyperparameterError(
                f"`scale_mode` should be {', '.join(_MODES)}. Found `scale_mode = {self.scale_mode}`."
            )

    def per_task(self) -> Mapping[str, PerTask | None]:
        """One number a task."""
        return {"preference": self.preference}

    def factor(self, weights_T: Array) -> float:
        """The paper averages."""
        return float(len(weights_T))

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Closed form."""
        preference_T = of_tasks(self.preference, step.names, step.tasks, 1.0 / len(gramian_TT))
        return weigh_aligned_mtl(gramian_TT, preference_T, self.scale_mode), 0.0


def weigh_aligned_mtl(gramian_TT: Array, preference_T: Array, scale_mode: str) -> Array:
    """`sqrt(s) V diag(l^-1/2) V^T p` over eigenvalues above `l_max T eps`, (T,)."""
    values_T, vectors_TT = np.linalg.eigh(gramian_TT)
    kept = values_T > values_T[-1] * len(values_T) * np.finfo(np.float64).eps
    values, vectors = values_T[kept], vectors_TT[:, kept]
    scale = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[scale_mode]
    weights_T: Array = np.sqrt(scale) * (vectors / np.sqrt(values)) @ (vectors.T @ preference_T)
    return weights_T
