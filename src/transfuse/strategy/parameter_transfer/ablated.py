"""What is left of a source's weights when their arrangement is taken away: two controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def each_tensor(state: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """`change` of every floating tensor with more than one element; all others as they are."""
    return {
        key: change(value) if value.is_floating_point() and value.numel() > 1 else value for key, value in state.items()
    }


def drawn_like(value: Tensor, generator: torch.Generator) -> Tensor:
    """Normal values with the tensor's mean and standard deviation."""
    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return value.mean() + value.std(correction=0) * noise


def shuffled(value: Tensor, generator: torch.Generator) -> Tensor:
    """The tensor's entries in random order."""
    order = torch.randperm(value.numel(), generator=generator)
    return value.flatten()[order].reshape(value.shape)
