"""Elements that are dropped at random, the smaller ones more often: what DELLA does to task vectors.

Dimensions in tensor names: R rows, C elements a row, B = R C elements of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.leaves import LEAF, leaves
from transfuse.strategy.weight_fusion import chance
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.masked import Masked
from transfuse.types import HyperparameterError


def keep_probabilities(num_elements: int, density: float, epsilon: float) -> NDArray[np.float64]:
    """p_r = density - epsilon + 2 epsilon r / (n - 1) of ranks r = 0 .. n-1 by magnitude, ascending; one: density.

    Example:
        >>> keep_probabilities(3, 0.5, 0.25).tolist()
        [0.25, 0.5, 0.75]
    """
    if num_elements == 1:
        return np.array([density])
    shares = np.arange(num_elements) / (num_elements - 1)
    # density + epsilon of the largest must not pass 1 by its rounding
    return np.minimum(density - epsilon + 2 * epsilon * shares, 1.0)


def magnitude_order(values_RC: Tensor) -> Tensor:
    """Columns of each row by magnitude, ascending, the smaller column first among equal ones: (R, C) int64.

    Example:
        >>> magnitude_order(torch.tensor([[3.0, -1.0, 1.0]]))
        tensor([[1, 2, 0]])
    """
    magnitudes_RC = values_RC.abs().cpu().numpy()
    if values_RC.dtype != torch.float32 or values_RC.shape[1] > 2**32:
        order_RC = np.argsort(magnitudes_RC, axis=1, kind="stable")
    else:  # non-negative floats order as their bits: a plain sort of (magnitude, column) is stable, and fast
        keys_RC = magnitudes_RC.view(np.uint32).astype(np.uint64)
        keys_RC <<= np.uint64(32)
        keys_RC |= np.arange(values_RC.shape[1], dtype=np.uint64)
        keys_RC.sort(axis=1)
        keys_RC &= np.uint64(2**32 - 1)
        order_RC = keys_RC.view(np.int64)
    return torch.from_numpy(order_RC).to(values_RC.device)


@dataclass(frozen=True, kw_only=True)
class MagnitudeSampling(Masked):
    """`d'_i = m_i d_i / p_i`, `m_i ~ Bernoulli(p_i)`, p_i from the rank of |d_i| in its row.

    Attributes:
        epsilon: half the range of probabilities, `density - epsilon` to `density + epsilon`, all in (0, 1].
        rank_over: ranks within a `row` (the weights of one output unit; a vector is one row) or the whole `tensor`.
    """

    whole: ClassVar[bool] = True

    epsilon: float = 0.15
    rank_over: Literal["row", "tensor"] = "row"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.epsilon >= 0 and self.density - self.epsilon > 0 and self.density + self.epsilon <= 1):
            raise HyperparameterError(
                "`epsilon` should be >= 0, with density - epsilon > 0 and density + epsilon <= 1. "
                f"Found `density = {self.density}` and `epsilon = {self.epsilon}`."
            )
        if self.rank_over not in ("row", "tensor"):
            raise HyperparameterError(f"`rank_over` should be row or tensor. Found `rank_over = {self.rank_over}`.")

    def thinned(self, block: Block, model: int) -> Tensor:
        """The kept elements of whole rows, (B,)."""
        assert block.base_B is not None, "the base is required"
        delta_B = torch.sub(block.rows_K[model], block.base_B)
        if self.density == 1:
            return delta_B
        width = self._width(block)
        order_RC = magnitude_order(delta_B.view(-1, width))
        probabilities_C = keep_probabilities(width, self.density, self.epsilon)
        if block.masks_KB is None:
            limits_B = _by_rank(order_RC, torch.from_numpy(chance.limits(probabilities_C)))
            delta_B *= chance.kept(chance.words(block, "della", model), limits_B, delta_B)
        else:
            delta_B *= block.masks_KB[model]
        if self.rescale == "inverse":
            # E[m d / p] = d
            delta_B *= _by_rank(order_RC, torch.from_numpy(1.0 / probabilities_C).to(delta_B.dtype))
        return delta_B

    def pieces(self, block: Block) -> Iterator[Block]:
        """The whole tensor in pieces of whole rows, about a leaf each: what is ranked together stays together."""
        width = self._width(block)
        for piece in leaves(len(block), max(LEAF // width, 1) * width):
            yield replace(
                block,
                rows_K=tuple(values_B[piece] for values_B in block.rows_K),
                stacked_KB=None,
                out_B=None,
                base_B=None if block.base_B is None else block.base_B[piece],
                offset=piece.start,
                masks_KB=None if block.masks_KB is None else block.masks_KB[:, piece],
            )

    def _width(self, block: Block) -> int:
        """Elements that are ranked together."""
        total = int(np.prod(block.shape))
        return total // block.shape[0] if self.rank_over == "row" and len(block.shape) > 1 else total


def _by_rank(order_RC: Tensor, table_C: Tensor) -> Tensor:
    """(B,) entry of each element's rank in its row."""
    table_C = table_C.to(order_RC.device)
    found_RC = torch.empty(order_RC.shape, dtype=table_C.dtype, device=order_RC.device)
    return found_RC.scatter_(1, order_RC, table_C.expand(order_RC.shape)).view(-1)
