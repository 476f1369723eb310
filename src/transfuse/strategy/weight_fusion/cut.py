"""Where a ranking by magnitude is cut: a mask of any tensor's block from two numbers.

Dimensions in tensor names: B elements of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import hardshrink


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The first elements of a ranking by magnitude: all above a threshold, and those equal to it up to an index.

    Attributes:
        threshold: magnitude of the last element before the cut; infinity where there is none.
        last: flat index of that element; -1 where there is none.

    Example:
        >>> values_B = torch.tensor([3.0, -2.0, 1.0, 2.0])
        >>> Cut(threshold=2.0, last=1).keeps(values_B), Cut(threshold=2.0, last=1).trim(values_B)
        (tensor([ True,  True, False, False]), tensor([ 3., -2.,  0.,  0.]))
    """

    threshold: float
    last: int

    def keeps(self, values_B: Tensor, offset: int = 0) -> Tensor:
        """(B,) booleans: which elements stand before the cut.

        Args:
            values_B: what was ranked.
            offset: flat index of the first of them.
        """
        magnitudes_B = values_B.abs()
        threshold, equal = self._in_type_of(values_B, offset)
        kept_B = magnitudes_B > threshold
        kept_B[:equal] |= magnitudes_B[:equal] == threshold
        return kept_B

    def trim(self, values_B: Tensor, offset: int = 0) -> Tensor:
        """(B,) the values before the cut, zeros for others, in a new tensor; arguments as in `keeps`."""
        threshold, equal = self._in_type_of(values_B, offset)
        if equal == 0:
            return hardshrink(values_B, threshold)
        below = _below(threshold, values_B)
        if equal == len(values_B):
            return hardshrink(values_B, below)
        trimmed_B = values_B.new_empty(len(values_B))
        trimmed_B[:equal] = hardshrink(values_B[:equal], below)
        trimmed_B[equal:] = hardshrink(values_B[equal:], threshold)
        return trimmed_B

    def shifted(self, start: int) -> Cut:
        """The same cut for a tensor that starts at index `start` of what was ranked."""
        return Cut(threshold=self.threshold, last=self.last - start)

    def _in_type_of(self, values_B: Tensor, offset: int) -> tuple[float, int]:
        """The threshold in the values' type, and how many of them stand before the cut where they equal it.

        A threshold of a wider type may lie between two numbers of this one: then those that equal the rounded one all
        stand on one side.
        """
        threshold = float(values_B.new_tensor(self.threshold))
        if threshold != self.threshold:
            return threshold, len(values_B) if threshold > self.threshold else 0
        return threshold, min(max(self.last + 1 - offset, 0), len(values_B))


def _below(threshold: float, like: Tensor) -> float:
    """|x| >= threshold is |x| > the number below it; at 0 it makes no difference to the value."""
    number = like.new_tensor(threshold)
    return float(number.nextafter(number.new_zeros(())))


NOTHING = Cut(threshold=math.inf, last=-1)


def everything(num_elements: int) -> Cut:
    """The cut after all elements."""
    return Cut(threshold=0.0, last=num_elements - 1)
