"""`weight_fusion/task_arithmetic`: what the models learned, added up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.linear import linear_coefficients
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.weighted import Weighted


def added(rows_K: Sequence[Tensor] | Tensor, base_B: Tensor, shares_K: Sequence[float]) -> Tensor:
    """`b + sum_i c_i (x_i - b)`, in which all points count: the models with c_i, the base with 1 - sum_i c_i.

    Differences are taken from the point of largest coefficient: a model that alone has coefficient 1 comes out exactly,
    and so do points that are all equal.

    Args:
        rows_K: K tensors (B,), the models' values.
        base_B: (B,) values of the base.
        shares_K: K coefficients c_i.

    Returns:
        (B,) new tensor.

    Example:
        >>> added(torch.tensor([[2.0], [4.0]]), torch.tensor([1.0]), (0.5, 0.5))
        tensor([3.])
    """
    points = [(1.0 - math.fsum(shares_K), base_B), *zip(shares_K, rows_K, strict=True)]
    anchor = max(range(len(points)), key=lambda index: abs(points[index][0]))
    anchor_B = points[anchor][1]
    total_B, term_B = torch.zeros_like(base_B), torch.empty_like(base_B)
    for index, (share, point_B) in enumerate(points):
        if index != anchor and share != 0:
            total_B.add_(torch.sub(point_B, anchor_B, out=term_B), alpha=share)
    return total_B.add_(anchor_B)


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(Weighted, Scaled):
    """`x = b + scale * sum_i w_i d_i`, with task vectors d_i = x_i - b.

    Attributes:
        weights: see `Weighted`; None: 1 each.
        scale: see `Scaled`; the paper searches it on validation data.
        normalize: divide the weights by their sum.

    Example:
        >>> start, models = {"w": torch.tensor([1.0])}, [{"w": torch.tensor([2.0])}, {"w": torch.tensor([4.0])}]
        >>> TaskArithmetic(scale=0.5).merged(models, start)
        {'w': tensor([3.])}

    Reference:
        Ilharco et al. 2023, "Editing models with task arithmetic", 2212.04089.
    """

    size: ClassVar[int] = WIDE

    normalize: bool = False

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The base plus the scaled sum of task vectors, (B,)."""
        assert block.base_B is not None and not isinstance(self.scale, str)
        weights_K = linear_coefficients(self.model_weights(block.num_models), normalize=self.normalize)
        return added(block.rows_K, block.base_B, [self.scale * weight for weight in weights_K])
