"""Keep or drop by chance: random bits of a block's elements against the probability to be kept.

Bits are a function of (seed, purpose, model, key, element) alone, so masks do not depend on blocks, threads or files.
Dimensions in tensor names: B elements of a block.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block

_SIGN = 2**31  # torch compares signed words: all are shifted by this


def words(block: Block, purpose: str, model: int) -> Tensor:
    """The block's `random_words`, shifted by -2^31: (B,) int32, uniform, on the block's device."""
    words_B = block.random_words(purpose, model)
    words_B ^= np.uint32(_SIGN)
    return torch.from_numpy(words_B.view(np.int32)).to(block.rows_K[0].device)


def limit(probability: float) -> int:
    """The largest of `words` that keeps its element: words below `probability * 2^32` do, before their shift.

    Args:
        probability: in (0, 1].

    Example:
        >>> limit(1.0) == 2**31 - 1, limit(0.5), limit(2.0**-32) == -(2**31)
        (True, -1, True)
    """
    return math.ceil(probability * 2**32) - 1 - _SIGN  # w < p 2^32


def limits(probabilities: NDArray[np.float64]) -> NDArray[np.int32]:
    """`limit` of each."""
    return (np.ceil(probabilities * 2.0**32) - 1 - _SIGN).astype(np.int32)


def kept(words_B: Tensor, limits_B: Tensor | int, like: Tensor) -> Tensor:
    """(B,) 1 where an element is kept and 0 where not, in the type of `like`: a product with it is a mask."""
    return torch.le(words_B, limits_B, out=torch.empty_like(like))
