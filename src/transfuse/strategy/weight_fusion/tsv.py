"""`weight_fusion/tsv`: each task's leading singular triplets, made orthogonal to those of the other tasks.

Dimensions in tensor names: K models, O rows, I columns, S singular triplets of all tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.matrices import MatrixFusion, polar, svd


def task_singular_vectors(deltas_KOI: Tensor) -> Tensor:
    """`P(U) diag(s) P(V)^T`: U, s, V of all tasks side by side, `max(1, int(r / K))` triplets each; P the polar factor.

    Args:
        deltas_KOI: (K, O, I) task matrices; r = min(O, I).

    Returns:
        (O, I); the task itself where there is one.

    Example:
        >>> task_singular_vectors(torch.tensor([[[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]]))
        tensor([[3., 0.],
                [0., 2.]])
    """
    kept = max(1, min(deltas_KOI.shape[1:]) // len(deltas_KOI))
    found = [svd(delta_OI) for delta_OI in deltas_KOI]
    left_OS = polar(torch.cat([left_OR[:, :kept] for left_OR, _, _ in found], dim=1))
    values_S = torch.cat([values_R[:kept] for _, values_R, _ in found])
    right_SI = polar(torch.cat([right_RI[:kept] for _, _, right_RI in found]))
    return (left_OS * values_S) @ right_SI


@dataclass(frozen=True, kw_only=True)
class TSVMerge(MatrixFusion):
    """`b + scale * P(U) diag(s) P(V)^T` for matrices, U, s, V the tasks' leading triplets; `mean_i d_i` for the rest.

    Attributes:
        scale: >= 0; `search` takes the best of `grid` on validation data.

    Example:
        >>> model, base = {"w": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}, {"w": torch.zeros(2, 2)}
        >>> TSVMerge().merged([model], base)
        {'w': tensor([[3., 0.],
                [0., 1.]])}

    Reference:
        Gargiulo et al. 2025, "Task Singular Vectors: Reducing Task Interference in Model Merging", 2412.00081,
        algorithm 1. Differs from the paper: at least one triplet a task, where the rank is below the number of tasks.
    """

    def fuse_matrix(self, deltas_KOI: Tensor) -> Tensor:
        """The decorrelated sum, (O, I)."""
        return task_singular_vectors(deltas_KOI)
