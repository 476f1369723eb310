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
    """Consecutive elements of one tensor. Methods read it and never write to it, but for `out_B`.

    The values are valid until the next block is drawn: their memory is used again, or is the models' own.

    Attributes:
        rows_K: the models' values, one (B,) a model, float32 (float64 where an input is float64).
        base_B: the base's values, or None where there is no base.
        key: of the tensor in the state dict.
        shape: of the whole tensor.
        offset: position of the block's first element in the flattened tensor.
        seed: of the merge.
        statistics: one tensor a model: (B,) like the values; methods of whole tensors get theirs as they were measured.
            None where nothing was measured for this tensor.
        masks_KB: booleans that were handed in, or None.
        stacked_KB: the rows as one matrix, where they lie in memory as one.
        out_B: where the result goes, (B,); a method may write it there. None: it returns new memory.
    """

    rows_K: tuple[Tensor, ...]
    base_B: Tensor | None
    key: str
    shape: tuple[int, ...]
    offset: int
    seed: int
    statistics: tuple[Tensor, ...] | None = None
    masks_KB: Tensor | None = None
    stacked_KB: Tensor | None = None
    out_B: Tensor | None = None

    def __len__(self) -> int:
        """B."""
        return len(self.rows_K[0])

    @property
    def num_models(self) -> int:
        """K."""
        return len(self.rows_K)

    @property
    def dtype(self) -> torch.dtype:
        """Of the values: what is computed in."""
        return self.rows_K[0].dtype

    @property
    def values_KB(self) -> Tensor:
        """The models' values as one matrix, copied where they are none in memory."""
        return torch.stack(self.rows_K) if self.stacked_KB is None else self.stacked_KB

    def random_words(self, purpose: str, model: int) -> NDArray[np.uint32]:
        """32 random bits for every element of the block.

        They are a function of (seed, purpose, model, key, element) alone: no block, thread, file or other tensor
        changes them.

        Returns:
            (B,) uint32, uniform in [0, 2^32).
        """
        num_elements = len(self)
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
        out: the flat result, where it has the type that is computed in; None where the result is converted.
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
    out: Tensor | None = None

    def __iter__(self) -> Iterator[Block]:
        first = self.values_K[0]
        num_elements = first.numel()
        size = num_elements if self.whole else min(self.size, num_elements)
        tensors = [value.reshape(-1) for value in (*self.values_K, *([] if self.base is None else [self.base]))]
        foreign = [index for index, value in enumerate(tensors) if value.dtype != self.dtype]
        scratch = torch.empty((len(foreign), size), dtype=self.dtype, device=first.device)
        num_models = len(self.values_K)
        alone = foreign[:num_models] == list(range(num_models))  # all models are converted, to one matrix
        for piece in leaves(num_elements, max(size, 1)):
            width = piece.stop - piece.start
            rows = [value[piece] for value in tensors]
            for row, index in enumerate(foreign):
                rows[index] = scratch[row, :width].copy_(rows[index])
            yield Block(
                rows_K=tuple(rows[:num_models]),
                base_B=None if self.base is None else rows[-1],
                key=self.key,
                shape=tuple(first.shape),
                offset=piece.start,
                seed=self.seed,
                statistics=self._statistics(piece),
                masks_KB=self._masks(piece),
                stacked_KB=scratch[:num_models, :width] if alone else None,
                out_B=None if self.out is None else self.out[piece],
            )

    def every(self, step: int, start: int = 0) -> Block:
        """Every `step`-th element from `start` on, as one block in new memory: a sample of the tensor."""
        piece = slice(start, None, step)
        return Block(
            rows_K=tuple(value.reshape(-1)[piece].to(self.dtype) for value in self.values_K),
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
