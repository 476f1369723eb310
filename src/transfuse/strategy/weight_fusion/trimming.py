"""Exact selection of the largest magnitudes of tensors that are only seen block by block.

A ranking by magnitude (equal ones: the smaller flat index first) is cut after a count. One pass finds where: a sample
says between which magnitudes the cut lies, the pass counts what is above and gathers what is between. Samples that
mislead (many equal magnitudes, structured tensors) leave it to `radix`, in a few passes more. Cost O(n).
Dimensions in tensor names: R rows that are ranked apart (models), B elements of a block, S sampled, G gathered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.cut import NOTHING, Cut, everything
from transfuse.strategy.weight_fusion.radix import Keys, magnitude_keys, place, radix_cut, threshold_of

# Values of a block to rank, (R, B), each a function of the models' and the base's values of its element alone.
Score = Callable[[Block], Tensor]

SAMPLE = 65_536
GATHERED = 2**20  # elements held at most for a cut, 12 bytes each
_DEVIATIONS = 4.0


def task_vectors(block: Block) -> Tensor:
    """d_i = x_i - b, (K, B), new. One expression for ranking and fusing, or their masks would disagree."""
    assert block.base_B is not None, "a method of task vectors has a base"
    deltas_KB = torch.empty((block.num_models, len(block)), dtype=block.dtype, device=block.base_B.device)
    for delta_B, values_B in zip(deltas_KB, block.rows_K, strict=True):
        torch.sub(values_B, block.base_B, out=delta_B)
    return deltas_KB


def kept_count(density: float, num_elements: int) -> int:
    """`max(1, floor(density n))`.

    Example:
        >>> [kept_count(0.2, size) for size in (1, 9, 10, 100)]
        [1, 1, 2, 20]
    """
    return max(1, math.floor(density * num_elements))


def largest(
    tensors: Sequence[Blocks],
    counts_R: Sequence[Sequence[int]],
    score: Score = task_vectors,
    *,
    sample: int = SAMPLE,
    most: int = GATHERED,
) -> tuple[tuple[Cut, ...], ...]:
    """Where each row's ranking by magnitude is cut, so that exactly `count` elements stand before the cut.

    Args:
        tensors: ranked together, as one flat vector in list order.
        counts_R: for each row its counts, each in [0, n]; they share the passes.
        score: what is ranked; by default the models' task vectors, one row a model.
        sample: how many elements are looked at first; up to so many are sorted out in memory. Changes no result.
        most: how many elements a cut may hold; those of n / 8 if that is less. Changes no result.

    Returns:
        One cut a count, a tuple a row; indices count from the first element of the first tensor.

    Example:
        >>> blocks = Blocks(
        ...     key="w", values_K=(torch.tensor([1.0, -3.0, 2.0, 3.0]),), base=torch.zeros(4), dtype=torch.float32
        ... )
        >>> largest([blocks], [[1, 3]])
        ((Cut(threshold=3.0, last=1), Cut(threshold=2.0, last=2)),)
    """
    widest = torch.float64 if any(blocks.dtype == torch.float64 for blocks in tensors) else torch.float32

    def scored(block: Block) -> Tensor:  # magnitudes of one type order by their bits
        return score(block).to(widest)

    num_elements = sum(blocks.values_K[0].numel() for blocks in tensors)
    limit = max(sample, min(num_elements // 8, most))
    targets_R = [
        [_Target(count=count, limit=limit) for count in dict.fromkeys(counts) if 0 < count < num_elements]
        for counts in counts_R
    ]
    if any(targets_R):
        _bracket(tensors, scored, targets_R, num_elements, sample)
        _gather(tensors, scored, targets_R)
    rows = []
    for row, (counts, targets) in enumerate(zip(counts_R, targets_R, strict=True)):
        found = {0: NOTHING, num_elements: everything(num_elements)}
        found |= {target.count: target.cut(_RowWalk(tensors, scored, row)) for target in targets}
        rows.append(tuple(found[count] for count in counts))
    return tuple(rows)


@dataclass(frozen=True)
class _RowWalk:
    """The keys of one row, piece by piece."""

    tensors: Sequence[Blocks]
    score: Score
    row: int

    def __call__(self) -> Iterator[Keys]:
        return (magnitude_keys(self.score(block)[self.row]) for blocks in self.tensors for block in blocks)


@dataclass(kw_only=True)
class _Target:
    """A cut that is looked for, and what a pass found of it: [low, high] should hold the threshold's key."""

    count: int
    limit: int
    low: np.unsignedinteger = field(init=False)
    high: np.unsignedinteger = field(init=False)
    above: int = 0
    at_high: int = 0
    at_low: int = 0
    gathered: int = 0
    keys: list[Keys] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)

    def bracket(self, sample_S: Keys, num_elements: int) -> None:
        """Takes the sampled keys 4 standard errors below and above the rank; all where the sample is everything."""
        self.low, self.high = sample_S.dtype.type(0), sample_S.dtype.type(np.iinfo(sample_S.dtype).max)
        size, share = sample_S.size, self.count / num_elements
        if size == num_elements:
            return
        # r = m p, sd = sqrt(m p (1 - p)): the expected rank in the sample
        spread = _DEVIATIONS * math.sqrt(size * share * (1 - share)) + 1
        first, last = size - math.ceil(size * share + spread), size - math.floor(size * share - spread)
        self.low = _ranked(sample_S, first) if first >= 0 else self.low
        self.high = _ranked(sample_S, last) if last < size else self.high

    def read(self, keys_B: Keys, start: int, scratch_B: Keys) -> None:
        """Counts what is above the bracket, and holds what is in it."""
        self.above += int(np.count_nonzero(keys_B > self.high))
        # low <= key <= high in one comparison: smaller keys wrap around
        above_low_B = np.subtract(keys_B, self.low, out=scratch_B)
        places_G = np.flatnonzero(above_low_B <= self.high - self.low)
        keys_G = keys_B[places_G]
        self.at_high += int(np.count_nonzero(keys_G == self.high))
        self.at_low += int(np.count_nonzero(keys_G == self.low))
        self.gathered += keys_G.size
        if self.gathered <= self.limit:
            self.keys.append(keys_G)
            self.places.append(places_G + start)
        else:
            self.keys.clear()
            self.places.clear()

    def cut(self, walk: _RowWalk) -> Cut:
        """The cut, from what is held; with more walks where the bracket missed it or held too much."""
        need = self.count - self.above  # of those in the bracket
        if not 0 < need <= self.gathered:
            return radix_cut(walk, self.count)
        if self.gathered <= self.limit:
            keys_G = np.concatenate(self.keys)
            key = _ranked(keys_G, keys_G.size - need)
            need -= int(np.count_nonzero(keys_G > key))
            last = np.concatenate(self.places)[np.flatnonzero(keys_G == key)[need - 1]]
            return Cut(threshold=threshold_of(key), last=int(last))
        if need <= self.at_high:
            return Cut(threshold=threshold_of(self.high), last=place(walk, self.high, need))
        need -= self.gathered - self.at_low
        if need > 0:
            return Cut(threshold=threshold_of(self.low), last=place(walk, self.low, need))
        return radix_cut(walk, self.count)


def _ranked(keys_N: Keys, rank: int) -> np.unsignedinteger:
    """The key at an ascending rank, from 0; numpy's partition is slow where many are equal, as in bf16."""
    signed = torch.from_numpy(keys_N.view(f"i{keys_N.dtype.itemsize}"))  # keys have no sign bit: the order is the same
    return keys_N.dtype.type(int(signed.kthvalue(rank + 1).values))


def _bracket(
    tensors: Sequence[Blocks], score: Score, targets_R: Sequence[Sequence[_Target]], num_elements: int, sample: int
) -> None:
    # an odd step: it meets all columns of matrices of even width
    step = max(1, num_elements // max(sample, num_elements // 512)) | 1 if num_elements > sample else 1
    parts, start = [], 0
    for blocks in tensors:
        size = blocks.values_K[0].numel()
        if -start % step < size:
            parts.append(score(blocks.every(step, -start % step)))
        start += size
    sample_RS = magnitude_keys(torch.cat(parts, dim=1))
    for targets, sample_S in zip(targets_R, sample_RS, strict=True):
        for target in targets:
            target.bracket(sample_S, num_elements)


def _gather(tensors: Sequence[Blocks], score: Score, targets_R: Sequence[Sequence[_Target]]) -> None:
    start = 0
    for blocks in tensors:
        for block in blocks:
            keys_RB = magnitude_keys(score(block))
            scratch_B = np.empty_like(keys_RB[0])
            for targets, keys_B in zip(targets_R, keys_RB, strict=True):
                for target in targets:
                    target.read(keys_B, start + block.offset, scratch_B)
        start += blocks.values_K[0].numel()
