"""`weight_fusion/iso_cts`: equal singular values in a common subspace and in directions of each task.

Dimensions in tensor names: K models, O rows, I columns, R = min(O, I) singular values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.matrices import MatrixFusion, polar, svd
from transfuse.types import HyperparameterError


def directions_per_task(rank: int, num_tasks: int, common_fraction: float) -> int:
    """`s = round((r - int(r f)) / T)`, at most what r has for T tasks; the common space has `r - T s` directions.

    Example:
        >>> directions_per_task(rank=16, num_tasks=3, common_fraction=0.5)
        3
    """
    return min(round((rank - int(rank * common_fraction)) / num_tasks), rank // num_tasks)


def isotropic_common_and_task(deltas_KOI: Tensor, common_fraction: float) -> Tensor:
    """Leading directions U_c of `sum_i d_i` and, for each task, of `d_i - U_c U_c^T d_i`, with one singular value.

    Both factors are orthogonalized by their polar factors; the one singular value is the mean of all that were kept.

    Args:
        deltas_KOI: (K, O, I) task matrices.
        common_fraction: share of the directions that is common, in [0, 1].

    Returns:
        (O, I).

    Example:
        >>> isotropic_common_and_task(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), common_fraction=0.5)
        tensor([[2., 0.],
                [0., 2.]])
    """
    num_tasks, rank = len(deltas_KOI), min(deltas_KOI.shape[1:])
    own = directions_per_task(rank, num_tasks, common_fraction)
    common = rank - num_tasks * own
    left_OR, values_R, right_RI = svd(deltas_KOI.sum(0))
    common_left = left_OR[:, :common]
    lefts, values, rights = [common_left], [values_R[:common]], [right_RI[:common]]
    for delta_OI in deltas_KOI:
        # d_i - U_c U_c^T d_i
        left_OR, values_R, right_RI = svd(delta_OI - common_left @ (common_left.T @ delta_OI))
        lefts.append(left_OR[:, :own])
        values.append(values_R[:own])
        rights.append(right_RI[:own])
    return torch.cat(values).mean() * (polar(torch.cat(lefts, dim=1)) @ polar(torch.cat(rights)))


@dataclass(frozen=True, kw_only=True)
class IsoCTS(MatrixFusion):
    """`b + scale * mean(s) U V^T` with common and task-specific singular vectors U, V; `mean_i d_i` for non-matrices.

    Attributes:
        scale: >= 0; `search` takes the best of `grid` on validation data.
        common_fraction: share of the singular directions that come from the sum of the tasks, in [0, 1].

    Example:
        >>> model, base = {"w": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}, {"w": torch.zeros(2, 2)}
        >>> IsoCTS(common_fraction=0.5).merged([model], base)
        {'w': tensor([[2., 0.],
                [0., 2.]])}

    Reference:
        Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
        2502.04959, algorithm 2.
    """

    common_fraction: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.common_fraction <= 1:
            raise HyperparameterError(
                f"`common_fraction` should be in [0, 1]. Found `common_fraction = {self.common_fraction}`."
            )

    def fuse_matrix(self, deltas_KOI: Tensor) -> Tensor:
        """The isotropic merge, (O, I)."""
        return isotropic_common_and_task(deltas_KOI, self.common_fraction)
