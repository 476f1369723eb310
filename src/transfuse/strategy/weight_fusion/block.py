"""A piece of one tensor in all models: what a per-tensor method sees.

Dimensions in tensor names: K models, B elements of the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.leaves import LEAF, leaves
from transfuse.randomness import derive_seed


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive elements of one tensor. Methods read it and never write to it.

    The values are valid until the next block is drawn: their memory is used again.

    Attributes:
        values_KB: the models' values, float32 (float64 where an input is float64).
        base_B: the base's values, or None where there is no base.
        key: of the tensor in the state dict.
        shape: of the whole tensor.
        offset: position of the block's first element in the flattened tensor.
        seed: of the merge.
        statistics: one tensor a model: (B,) like the values; methods of whole tensors get theirs as they were measured.
            None where nothing was measured for this tensor.
        masks_KB: booleans that were handed in, or None.
    """

    values_KB: Tensor
    base_B: Tensor | None
    key: str
    shape: tuple[int, ...]
    offset: int
    seed: int
    statistics: tuple[Tensor, ...] | None = None
    masks_KB: Tensor | None = None

    def random_words(self, purpose: str, model: int) -> NDArray[np.uint32]:
        """32 random bits for every element of the block.

        They are a function of (seed, purpose, model, key, element) alone: no block, thread, file or other tensor
        changes them.

        Returns:
            (B,) uint32, uniform in [0, 2^32).
        """
        num_elements = self.values_KB.shape[1]
        stream = np.random.PCG64DXSM(derive_seed(self.seed, purpose, model, self.key))
        stream.advance(self.offset // 2)  # a 64-bit word serves two elements
        skipped = self.offset % 2
        words = stream.random_raw((skipped + num_elements + 1) // 2)
        return words.astype("<u8", copy=False).view("<u4")[skipped : skipped + num_elements]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """One tensor of K models as a sequence of blocks, in element order. It can be walked any number of times.

    Attributes:
        key: of the tensor.
        values_K: the models' tensors, of one shape.
        base: the base's tensor, or None.
        dtype: to compute in.
        size: elements a block.
        seed: of the merge.
        statistics: one tensor a model, or None; of the models' shape unless `whole`.
        masks: one boolean tensor a model, or None.
        whole: the method takes the whole tensor as one block.
    """

    key: str
    values_K: tuple[Tensor, ...]
    base: Tensor | None
    dtype: torch.dtype
    size: int = LEAF
    seed: int = 0
    statistics: tuple[Tensor, ...] | None = None
    masks: tuple[Tensor, ...] | None = None
    whole: bool = False

    def __iter__(self) -> Iterator[Block]:
        first = self.values_K[0]
        num_elements = first.numel()
        size = num_elements if self.whole else min(self.size, num_elements)
        scratch = torch.empty((len(self.values_K) + 1, size), dtype=self.dtype, device=first.device)
        values_K = [value.reshape(-1) for value in self.values_K]
        base = None if self.base is None else self.base.reshape(-1)
        for piece in leaves(num_elements, max(size, 1)):
            width = piece.stop - piece.start
            values_KB = scratch[:-1, :width]
            for row_B, value in zip(values_KB, values_K, strict=True):
                row_B.copy_(value[piece])
            yield Block(
                values_KB=values_KB,
                base_B=None if base is None else scratch[-1, :width].copy_(base[piece]),
                key=self.key,
                shape=tuple(first.shape),
                offset=piece.start,
                seed=self.seed,
                statistics=self._statistics(piece),
                masks_KB=self._masks(piece),
            )

    def every(self, step: int, start: int = 0) -> Block:
        """Every `step`-th element from `start` on, as one block in new memory: a sample of the tensor."""
        piece = slice(start, None, step)
        return Block(
            values_KB=torch.stack([value.reshape(-1)[piece].to(self.dtype) for value in self.values_K]),
            base_B=None if self.base is None else self.base.reshape(-1)[piece].to(self.dtype),
            key=self.key,
            shape=tuple(self.values_K[0].shape),
            offset=start,
            seed=self.seed,
            statistics=self._statistics(piece),
            masks_KB=self._masks(piece),
        )

    def _statistics(self, piece: slice) -> tuple[Tensor, ...] | None:
        if self.statistics is None or self.whole:
            return self.statistics
        return tuple(value.reshape(-1)[piece].to(self.dtype) for value in self.statistics)

    def _masks(self, piece: slice) -> Tensor | None:
        return None if self.masks is None else torch.stack([mask.reshape(-1)[piece].bool() for mask in self.masks])
