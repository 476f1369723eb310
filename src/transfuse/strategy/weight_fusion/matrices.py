"""What methods of whole matrices share: task vectors as float64 matrices, singular vectors without arbitrary ones.

Singular vectors of singular values that are 0 up to rounding are arbitrary, so they are 0 here: directions that no
task moved stay as they are, and no result depends on the linear algebra library.
Dimensions in tensor names: K models, O rows, I columns, R = min(O, I) singular values.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.scaled import Scaled


@dataclass(frozen=True, kw_only=True)
class MatrixFusion(Scaled):
    """`b + scale * D`: D comes from the matrices d_i where the tensor has two dimensions, and is their mean elsewhere.

    Attributes:
        scale: >= 0; `search` takes the best of `grid` on validation data.
    """

    whole: ClassVar[bool] = True

    @abstractmethod
    def fuse_matrix(self, deltas_KOI: Tensor) -> Tensor:
        """D (O, I) of the task vectors (K, O, I), float64."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The fused tensor, flat."""
        assert block.base_B is not None, "base is required"
        base_B = block.base_B.double()
        deltas_KB = block.values_KB.double() - base_B
        if len(block.shape) == 2 and bool(deltas_KB.any()):
            merged_B = self.fuse_matrix(deltas_KB.reshape(-1, *block.shape)).reshape(-1)
        else:
            merged_B = deltas_KB.mean(0)
        assert not isinstance(self.scale, str), "searched values are numbers"
        return merged_B.mul_(self.scale).add_(base_B).to(block.dtype)


def svd(matrix_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values, `matrix = U diag(s) V^T`; those that are 0 up to rounding are 0, with their vectors.

    Returns:
        U (O, R), s (R,) descending, V^T (R, I).

    Example:
        >>> svd(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))[1]
        tensor([2., 0.])
    """
    left_OR, values_R, right_RI = torch.linalg.svd(matrix_OI, full_matrices=False)
    cutoff = values_R.max() * max(matrix_OI.shape) * torch.finfo(matrix_OI.dtype).eps
    kept_R = values_R > cutoff
    return left_OR * kept_R, values_R * kept_R, right_RI * kept_R[:, None]


def polar(matrix_OI: Tensor) -> Tensor:
    """The orthogonal factor `U V^T` of the polar decomposition, 0 on the null space.

    The nearest matrix with orthonormal columns (rows, where it is wide) to one of full rank.

    Example:
        >>> polar(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
        tensor([[1., 0.],
                [0., 0.]])
    """
    left_OR, _, right_RI = svd(matrix_OI)
    return left_OR @ right_RI
