"""Exact selection by counting digits of magnitudes: for data that a sample misjudges.

Magnitudes of floats order as the integers of their bits. Each pass counts the next 16 bits of those elements that share
the digits found so far; the last pass finds the place. Bounded memory, two passes and a scan for float32.
Dimensions in tensor names: B elements of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from transfuse.strategy.weight_fusion.cut import Cut

# Bits of magnitudes: 32 or 64 bits, never the sign.
Keys = NDArray[np.unsignedinteger]
# Starts a walk over all keys, piece by piece in element order.
Walk = Callable[[], Iterator[Keys]]

_DIGIT = 16


def magnitude_keys(values: Tensor) -> Keys:
    """Bits of |x| as unsigned integers of the same width: they order as the magnitudes do, -0.0 equals 0.0.

    Args:
        values: float32 or float64 of any shape.

    Example:
        >>> magnitude_keys(torch.tensor([1.0, -1.0, -0.0]))
        array([1065353216, 1065353216,          0], dtype=uint32)
    """
    array = values.cpu().numpy()
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    sign_free = unsigned.type(np.iinfo(unsigned).max >> 1)
    keys: Keys = np.ascontiguousarray(array).view(unsigned) & sign_free
    return keys


def threshold_of(key: np.unsignedinteger) -> float:
    """The magnitude whose bits are `key`."""
    return float(key.view(f"f{key.dtype.itemsize}"))


def radix_cut(walk: Walk, count: int) -> Cut:
    """The cut after the `count` largest keys, the first of equal ones first.

    Args:
        walk: called once a pass.
        count: in [1, n].

    Example:
        >>> radix_cut(lambda: iter([magnitude_keys(torch.tensor([1.0, -3.0, 3.0]))]), 1)
        Cut(threshold=3.0, last=1)
    """
    found, need = 0, count
    width = 8 * next(walk()).dtype.itemsize
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        counts = _digit_counts(walk, found, shift)
        # the largest digit at which the elements from above reach `need`
        reached = np.cumsum(counts[::-1])
        digit_from_top = int(np.searchsorted(reached, need))
        need -= int(reached[digit_from_top] - counts[::-1][digit_from_top])
        found = found << _DIGIT | (len(counts) - 1 - digit_from_top)
    key = np.dtype(f"u{width // 8}").type(found)
    return Cut(threshold=threshold_of(key), last=place(walk, key, need))


def place(walk: Walk, key: np.unsignedinteger, need: int) -> int:
    """Flat index of the need-th element that equals `key`; need >= 1."""
    start = 0
    for keys_B in walk():
        equal = np.flatnonzero(keys_B == key)
        if need <= equal.size:
            return start + int(equal[need - 1])
        need -= equal.size
        start += keys_B.size
    raise AssertionError(f"{need} equal elements are missing: the walk changed between two passes")


def _digit_counts(walk: Walk, found: int, shift: int) -> NDArray[np.int64]:
    """How often each 16-bit digit stands at `shift` in the keys that start with the digits `found`."""
    counts = np.zeros(2**_DIGIT, dtype=np.int64)
    for keys_B in walk():
        digits_B = (keys_B >> keys_B.dtype.type(shift)).astype(np.int64)
        # at the top all digits count: nothing is found yet
        digits_B = digits_B[digits_B >> _DIGIT == found] - (found << _DIGIT)
        counts += np.bincount(digits_B, minlength=counts.size)
    return counts
