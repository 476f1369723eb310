"""`weight_fusion/iso_c`: the sum of the task matrices with all singular values made equal.

Dimensions in tensor names: K models, O rows, I columns, R = min(O, I) singular values.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.weight_fusion.matrices import MatrixFusion, svd


def isotropic(deltas_KOI: Tensor) -> Tensor:
    """`mean(s) U V^T` for the singular value decomposition `U diag(s) V^T = sum_i d_i`.

    Args:
        deltas_KOI: (K, O, I) task matrices.

    Returns:
        (O, I). Directions whose singular value is 0 stay 0, as their singular vectors are arbitrary.

    Example:
        >>> isotropic(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]))
        tensor([[2., 0.],
                [0., 2.]])
    """
    left_OR, values_R, right_RI = svd(deltas_KOI.sum(0))
    return values_R.mean() * (left_OR @ right_RI)


@dataclass(frozen=True, kw_only=True)
class IsoC(MatrixFusion):
    """`b + scale * mean(s) U V^T`, `U diag(s) V^T = sum_i d_i`, for matrices; `b + scale * mean_i d_i` for the rest.

    Attributes:
        scale: >= 0; `search` takes the best of `grid` on validation data.

    Example:
        >>> model, base = {"w": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}, {"w": torch.zeros(2, 2)}
        >>> IsoC().merged([model], base)
        {'w': tensor([[2., 0.],
                [0., 2.]])}

    Reference:
        Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
        2502.04959, algorithm 1.
    """

    def fuse_matrix(self, deltas_KOI: Tensor) -> Tensor:
        """The isotropic sum, (O, I)."""
        return isotropic(deltas_KOI)
