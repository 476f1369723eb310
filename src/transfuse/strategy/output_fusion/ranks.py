"""Ranks by sorting, ties counted half: what rank-based pools share."""

from __future__ import annotations

import torch
from torch import Tensor


def counts(values: Tensor, sorted_reference: Tensor) -> tuple[Tensor, Tensor]:
    """How many reference values are less than, and how many equal, each value, along the last dimension.

    Args:
        values: (..., N).
        sorted_reference: (..., R) ascending, the same leading dimensions.

    Returns:
        Two tensors (..., N) of integers.

    Example:
        >>> counts(torch.tensor([2.0, 5.0]), torch.tensor([1.0, 2.0, 2.0, 3.0]))
        (tensor([1, 4]), tensor([2, 0]))
    """
    values, sorted_reference = values.contiguous(), sorted_reference.contiguous()
    less = torch.searchsorted(sorted_reference, values)
    return less, torch.searchsorted(sorted_reference, values, right=True) - less
