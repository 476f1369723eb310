"""`weight_fusion/pcb`: elements weighed by how large they are in their own model and how much the others agree.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.leaves import LEAF
from transfuse.state_dict import compute_dtype
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.trimming import Score, largest, task_vectors
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Range:
    """The interval [low_i, high_i] of each model's values."""

    low_K: tuple[float, ...]
    high_K: tuple[float, ...]

    def clamped(self, values_KB: Tensor) -> Tensor:
        """(K, B) values inside the interval."""
        return values_KB.clamp(_column(self.low_K, values_KB), _column(self.high_K, values_KB))

    def scaled(self, values_KB: Tensor) -> Tensor:
        """(K, B) min-max scaled to [0, 1] after clamping; an interval without width: 0 below it, else 1."""
        low_K1, high_K1 = _column(self.low_K, values_KB), _column(self.high_K, values_KB)
        shares_KB = (values_KB - low_K1).div_(high_K1 - low_K1).clamp_(0, 1)
        return torch.where(high_K1 > low_K1, shares_KB, (values_KB >= low_K1).to(values_KB.dtype))


def balance(deltas_KB: Tensor, magnitudes: Range) -> Tensor:
    """Scores intra x inter = exp(K u^2) tanh(d_i sum_j d_j), u = |d_i| clamped and min-max scaled.

    Args:
        deltas_KB: (K, B) task vectors.
        magnitudes: what |d_i| is clamped to, in each model.

    Returns:
        (K, B): positive where the sum of all agrees with the model's sign.

    Example:
        >>> deltas_KB = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> balance(deltas_KB, Range(low_K=(0.0, 0.0), high_K=(1.0, 1.0)))
        tensor([[0.0000, 7.1233],
                [0.0000, 7.1233]])

    Reference:
        Du et al. 2024, 2410.02396, equations 2 to 4.
    """
    num_models = len(deltas_KB)
    intra_KB = magnitudes.scaled(deltas_KB.abs()).square_().mul_(num_models).exp_()
    total_B = weighted_sum(deltas_KB, (1.0,) * num_models)
    return intra_KB.mul_((deltas_KB * total_B).tanh_())


@dataclass(frozen=True, kw_only=True)
class PCBMerging(Scaled):
    """`x = b + scale * sum_i s_i d_i / sum_i s_i`, element-wise, s_i from the balance of parameter competition.

    Over all fused tensors as one flat vector, `d_i = x_i - b` with magnitudes winsorized at the quantiles `trim` and
    `1 - trim`: intra = exp(K u^2) with u = |d_i| min-max scaled, inter = tanh(d_i sum_j d_j); of intra x inter the top
    `ratio` is kept and min-max scaled: s_i, 0 elsewhere. An element that no model keeps has the base's value.

    Attributes:
        ratio: share of elements that compete, in (0, 1]; at least one element does.
        trim: quantile in [0, 0.5) at which magnitudes are winsorized at both ends.
        scale: see `Scaled`.

    Differs from the published code: exactly floor(trim n) magnitudes are cut off at either end and max(1, floor(ratio
    n)) elements are kept (there: one more, and up to one more); where all kept scores are equal, they weigh 1, not 0/0.

    Example:
        >>> base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([4.0, 1.0])}, {"w": torch.tensor([2.0, 1.0])}]
        >>> PCBMerging(ratio=0.5).merged(models, base)
        {'w': tensor([3., 0.])}

    Reference:
        Du et al. 2024, "Parameter competition balancing for model merging", 2410.02396.
    """

    ratio: float = 0.1
    trim: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise HyperparameterError(f"`ratio` should be in (0, 1]. Found `ratio = {self.ratio}`.")
        if not 0 <= self.trim < 0.5:
            raise HyperparameterError(f"`trim` should be in [0, 0.5). Found `trim = {self.trim}`.")

    def bind(self, tensors: Sequence[Blocks]) -> _Balanced | PCBMerging:
        """Finds the two intervals of each model over all tensors."""
        assert not isinstance(self.scale, str), "a search replaces it by numbers"
        num_elements = sum(blocks.values_K[0].numel() for blocks in tensors)
        if num_elements == 0:
            return self
        trimmed = int(self.trim * num_elements)
        magnitudes = _ranked(tensors, task_magnitudes, trimmed + 1, num_elements - trimmed)
        kept = max(1, int(self.ratio * num_elements))
        scores = _ranked(tensors, lambda block: balance(task_vectors(block), magnitudes), 1, kept)
        return _Balanced(scale=self.scale, magnitudes=magnitudes, scores=scores)

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """Nothing is fused without `bind`, which alone knows the intervals."""
        raise AssertionError("`bind` gives what fuses blocks")


@dataclass(frozen=True, kw_only=True)
class _Balanced:
    """The method with the intervals of magnitudes and of kept scores."""

    scale: float
    magnitudes: Range
    scores: Range
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> _Balanced:
        """Knows all tensors already."""
        return self

    def survey(self, blocks: Iterable[Block]) -> None:
        """Nothing more to measure."""

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """Base plus the scaled average of the winners, (B,)."""
        assert block.base_B is not None, "the base is required"
        deltas_KB = task_vectors(block)
        shares_KB = self.scores.scaled(balance(deltas_KB, self.magnitudes))
        winsorized_KB = self.magnitudes.clamped(deltas_KB.abs()).mul_(deltas_KB.sign())
        ones_K = (1.0,) * len(deltas_KB)
        divisor_B = weighted_sum(shares_KB, ones_K)
        merged_B = weighted_sum(winsorized_KB.mul_(shares_KB), ones_K)
        # b + scale sum s d / sum s
        merged_B.div_(divisor_B.masked_fill_(divisor_B == 0, 1.0))
        return merged_B.mul_(self.scale).add_(block.base_B)


def task_magnitudes(block: Block) -> Tensor:
    """|d_i|, (K, B)."""
    return task_vectors(block).abs_()


def _ranked(tensors: Sequence[Blocks], score: Score, first: int, last: int) -> Range:
    """The scores of ranks `first` and `last`, counted from the largest, in each model over all tensors.

    Scores of both signs are ranked with `first` = 1.
    """
    num_elements = sum(blocks.values_K[0].numel() for blocks in tensors)
    least_K, most_K, positive_K = _extremes(tensors, score)
    inner = [rank for rank in (first, last) if 1 < rank < num_elements]
    # rankings go by magnitude: rank r from the largest is rank n + 1 - r from the smallest, which is that of -score
    upward_K = [
        least >= 0 or positive >= last for least, positive in zip(least_K.tolist(), positive_K.tolist(), strict=True)
    ]
    assert first == 1 or all(upward_K), "scores of both signs have one inner rank"
    signs_K = tuple(1.0 if upward else -1.0 for upward in upward_K)
    counts_K = [inner if upward else [num_elements + 1 - rank for rank in inner] for upward in upward_K]
    widest = least_K.dtype

    def one_sided(block: Block) -> Tensor:
        scores_KB = score(block).to(widest)
        return scores_KB.mul_(_column(signs_K, scores_KB)).clamp_min_(0)

    found_K = largest(tensors, counts_K, one_sided) if inner else ()
    by_rank = {num_elements: tuple(least_K.tolist()), 1: tuple(most_K.tolist())}
    for position, rank in enumerate(inner):
        thresholds = [cuts[position].threshold for cuts in found_K]
        by_rank[rank] = tuple(sign * value for sign, value in zip(signs_K, thresholds, strict=True))
    return Range(low_K=by_rank[last], high_K=by_rank[first])


def _extremes(tensors: Sequence[Blocks], score: Score) -> tuple[Tensor, Tensor, Tensor]:
    """Each model's smallest and largest value, in the widest type, and how many are positive: (K,) each."""
    lows, highs, positives = [], [], []
    for block in (block for blocks in tensors for block in blocks):
        scores_KB = score(block)
        low_K, high_K = scores_KB.aminmax(dim=1)
        lows.append(low_K)
        highs.append(high_K)
        positives.append((scores_KB > 0).sum(1))
    widest = compute_dtype(lows)
    low_K = torch.stack([low_K.to(widest) for low_K in lows]).amin(0)
    high_K = torch.stack([high_K.to(widest) for high_K in highs]).amax(0)
    return low_K, high_K, torch.stack(positives).sum(0)


def _column(numbers_K: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(numbers_K, dtype=like.dtype, device=like.device)[:, None]
