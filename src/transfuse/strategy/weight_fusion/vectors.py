"""What methods of inner products share: which parts of a tensor are one vector, their Gram matrices, their sums.

The result of such a method is `x = sum_i c_i x_i`, or `b + sum_i c_i (x_i - b)` with a base, and c is a function of the
inner products alone. Dimensions in tensor names: K models, V vectors of the tensor, B elements of a block, and the
R x C rectangle of elements that a block has in common with the tensor's matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor

from transfuse.leaves import WIDE, leaves, pairwise_sum
from transfuse.strategy.weight_fusion.block import Block, Blocks

Over = Literal["tensor", "row", "column"]
_RUN = 512  # products that are summed in one go: longer sums of float32 lose digits
_CANCEL = 2.0  # coefficients whose magnitudes sum to more are those of near-opposite vectors: their terms cancel


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """Consecutive elements of a block that form a rectangle of the tensor's matrix.

    Attributes:
        piece: of the block.
        vectors: that it is a part of.
        shape: (R, C); or (1, R C) where all of it is one vector.
    """

    piece: slice
    vectors: slice
    shape: tuple[int, int]


def grams(blocks: Blocks, over: Over = "tensor", *, exact: bool = False) -> Tensor:
    """Inner products of the models' vectors, of their task vectors where there is a base.

    Args:
        blocks: of one tensor that is not empty.
        over: what is a vector: the flattened tensor; each row (the elements of one index of the first dimension); or
            each column. A tensor of fewer than two dimensions is one vector.
        exact: products in float64 in any case; by default those of a whole tensor in float32 are summed in runs of 512,
            and the runs in float64: relative error about 1e-8, which a smooth function of cosines does not feel.

    Returns:
        (V, K, K) float64.

    Example:
        >>> values_K = (torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]))
        >>> grams(Blocks(key="w", values_K=values_K, base=None, dtype=torch.float32))
        tensor([[[25.,  3.],
                 [ 3.,  1.]]], dtype=torch.float64)
    """
    if over == "tensor":
        wide = replace(blocks, size=WIDE)
        if _bits(blocks) < 9 and not exact:
            return pairwise_sum([_rough_gram(block) for block in wide]).unsqueeze(0)
        dtype = torch.float64 if exact else blocks.dtype
        return pairwise_sum([_gram(block, dtype) for block in wide]).unsqueeze(0)
    total_VKK: Tensor | None = None
    for block in blocks:
        deltas_KB = _deltas(block, torch.float64)
        if total_VKK is None:
            num_models = len(deltas_KB)
            total_VKK = deltas_KB.new_zeros(_num_vectors(block.shape, over), num_models, num_models)
        for part in rectangles(block, over):
            deltas_KRC = deltas_KB[:, part.piece].reshape(-1, *part.shape)
            total_VKK[part.vectors] += _gram_of_rows(deltas_KRC) if over == "row" else _gram_of_columns(deltas_KRC)
    assert total_VKK is not None, "empty tensors are not surveyed"
    return total_VKK.cpu()


def cosines(gram_VKK: Tensor) -> Tensor:
    """G_ij / sqrt(G_ii G_jj), within [-1, 1]; 0 where a vector is zero.

    Example:
        >>> cosines(torch.tensor([[4.0, 2.0], [2.0, 1.0]]))
        tensor([[1., 1.],
                [1., 1.]])
    """
    norms_VK = gram_VKK.diagonal(dim1=-2, dim2=-1).sqrt()
    norms_VKK = norms_VK[..., :, None] * norms_VK[..., None, :]
    # an infinite divisor makes 0 of 0 / 0
    return (gram_VKK / norms_VKK.where(norms_VKK > 0, torch.inf)).clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What a survey finds: the coefficients of a tensor's vectors, and in which type their sums are computed.

    Attributes:
        values_VK: (V, K) float64.
        dtype: float64 where a result in float32 would be rounded several times, or where terms cancel; float32 else.
    """

    values_VK: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, values_VK: Tensor, blocks: Blocks) -> Coefficients:
        """Those of a tensor."""
        cancel = float(values_VK.abs().sum(-1).max()) > _CANCEL
        return cls(values_VK=values_VK, dtype=torch.float32 if _bits(blocks) < 12 and not cancel else torch.float64)


def combine(block: Block, coefficients: Coefficients, over: Over = "tensor") -> Tensor:
    """`sum_i c_i x_i`, or `b + sum_i c_i (x_i - b)` with a base: where all models equal the base it is the base.

    Args:
        block: its values are not written to.
        coefficients: of the tensor.
        over: as in `grams`.

    Returns:
        (B,) new tensor of the block's type.
    """
    dtype = coefficients.dtype
    if over == "tensor":
        factors_K = coefficients.values_VK[0].tolist()
        total_B = _combined(block, slice(None), factors_K, (-1,), dtype)
        return total_B.to(block.dtype) if block.out_B is None else block.out_B.copy_(total_B)
    total_B = torch.empty_like(block.rows_K[0])
    factors_KV = coefficients.values_VK.to(total_B.device, dtype).T
    for part in rectangles(block, over):
        factors = factors_KV[:, part.vectors, None] if over == "row" else factors_KV[:, part.vectors]
        total_B[part.piece] = _combined(block, part.piece, factors.unbind(), part.shape, dtype).reshape(-1)
    return total_B


def rectangles(block: Block, over: Over) -> Iterator[Rectangle]:
    """The block cut at the borders of rows: the end of one row, whole rows, the start of one.

    A tensor of fewer than two dimensions is one row, or one column.
    """
    width = _width(block.shape, over)
    start, stop = block.offset, block.offset + len(block)
    while start < stop:
        row, column = divmod(start, width)
        num_rows = (stop - start) // width if column == 0 else 0
        end = start + num_rows * width if num_rows else min(stop, (row + 1) * width)
        shape = (max(num_rows, 1), width if num_rows else end - start)
        vectors = slice(row, row + shape[0]) if over == "row" else slice(column, column + shape[1])
        yield Rectangle(piece=slice(start - block.offset, end - block.offset), vectors=vectors, shape=shape)
        start = end


def _width(shape: tuple[int, ...], over: Over) -> int:
    """Columns of the tensor's matrix: its first dimension against all others."""
    if len(shape) >= 2:
        return max(1, torch.Size(shape[1:]).numel())
    return torch.Size(shape).numel() if over == "row" else 1


def _num_vectors(shape: tuple[int, ...], over: Over) -> int:
    width = _width(shape, over)
    return torch.Size(shape).numel() // width if over == "row" else width


def _bits(blocks: Blocks) -> float:
    """Significant bits of the finest values, the implicit one included: 8 of bfloat16, 11 of float16, 24 of float32.

    Where there are few, float32 is exact enough for a result that is rounded to as many.
    """
    values = blocks.values_K if blocks.base is None else (*blocks.values_K, blocks.base)
    return max(1 - math.log2(torch.finfo(value.dtype).eps) for value in values)


def _gram(block: Block, dtype: torch.dtype) -> Tensor:
    """(K, K) float64 G = D D^T of one block."""
    deltas_KB = _deltas(block, dtype)
    num_runs = deltas_KB.shape[1] // _RUN
    runs_NKB = deltas_KB[:, : num_runs * _RUN].reshape(len(deltas_KB), num_runs, _RUN).transpose(0, 1)
    rest_KB = deltas_KB[:, num_runs * _RUN :].double()
    return ((runs_NKB @ runs_NKB.mT).sum(0, dtype=torch.float64) + rest_KB @ rest_KB.T).cpu()


def _rough_gram(block: Block) -> Tensor:
    """The same in float32, in runs of a leaf: relative error below 1e-6, far less than a unit of bfloat16."""
    rows_K = block.rows_K if block.base_B is None else _deltas(block, block.dtype)
    gram_KK = torch.zeros(block.num_models, block.num_models, dtype=torch.float64)
    for piece in leaves(len(block)):
        for first, second in combinations_with_replacement(range(block.num_models), 2):
            gram_KK[first, second] += float(rows_K[first][piece] @ rows_K[second][piece])
    return gram_KK.triu() + gram_KK.triu(1).T


def _gram_of_rows(deltas_KRC: Tensor) -> Tensor:
    """(R, K, K) G = D D^T of each row."""
    return torch.einsum("krc,lrc->rkl", deltas_KRC, deltas_KRC)


def _gram_of_columns(deltas_KRC: Tensor) -> Tensor:
    """(C, K, K) G = D D^T of each column: by products of elements, which lie far apart for inner products."""
    num_models, _, num_columns = deltas_KRC.shape
    gram_CKK = deltas_KRC.new_empty(num_columns, num_models, num_models)
    for model, deltas_RC in enumerate(deltas_KRC):
        for other in range(model, num_models):
            gram_CKK[:, model, other] = gram_CKK[:, other, model] = (deltas_RC * deltas_KRC[other]).sum(0)
    return gram_CKK


def _deltas(block: Block, dtype: torch.dtype) -> Tensor:
    """(K, B) values, minus the base's where there is one."""
    if block.base_B is None:
        return block.values_KB.to(dtype)
    base_B = block.base_B.to(dtype)
    deltas_KB = torch.empty((block.num_models, len(block)), dtype=dtype, device=base_B.device)
    for delta_B, values_B in zip(deltas_KB, block.rows_K, strict=True):
        torch.sub(values_B.to(dtype), base_B, out=delta_B)
    return deltas_KB


def _combined(
    block: Block,
    piece: slice,
    factors_K: Sequence[float | Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    """The sum over models."""
    base = None if block.base_B is None else block.base_B[piece].view(shape).to(dtype)
    total: Tensor | None = None
    for values_B, factor in zip(block.rows_K, factors_K, strict=True):
        values = values_B[piece].view(shape).to(dtype)
        values = values if base is None else values - base
        if total is None:
            total = values * factor
        elif isinstance(factor, Tensor):
            total.addcmul_(values, factor)
        else:
            total.add_(values, alpha=factor)
    assert total is not None, "there is a model"
    return total if base is None else total.add_(base)
