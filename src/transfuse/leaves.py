"""The walk over a tensor's elements that all merging shares, and reductions whose value does not depend on it.

A tensor is walked in leaves of 64 Ki elements in element order, wherever it lies (memory or file). Reductions are
computed leaf by leaf and summed pairwise in float64, so that threads and I/O blocks never change a digit.
Dimensions in tensor names: K models, L leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

LEAF = 65_536
WIDE = 4 * LEAF  # for maps of a few passes, whose calls cost more than a miss in the cache


def leaves(num_elements: int, size: int = LEAF) -> Iterator[slice]:
    """Consecutive slices of at most `size` elements that cover `num_elements`; none for an empty tensor.

    Example:
        >>> list(leaves(5, size=2))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(start, min(start + size, num_elements)) for start in range(0, num_elements, size))


def pairwise_sum(parts_L: Sequence[Tensor]) -> Tensor:
    """Sum of equally shaped tensors, one a leaf, in float64: halves are summed first, then added.

    The tree depends on the number of leaves alone.

    Args:
        parts_L: at least one tensor.

    Returns:
        A float64 tensor of the parts' shape.

    Example:
        >>> pairwise_sum([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)])
        tensor(7., dtype=torch.float64)
    """
    if len(parts_L) == 1:
        return parts_L[0].double()
    middle = len(parts_L) // 2
    return pairwise_sum(parts_L[:middle]) + pairwise_sum(parts_L[middle:])


def gram(values_K: Sequence[Tensor]) -> Tensor:
    """Inner products of K flattened tensors: G_ij = <x_i, x_j>.

    Args:
        values_K: K floating tensors of one shape.

    Returns:
        (K, K) float64; zeros for empty tensors.

    Example:
        >>> gram([torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])])
        tensor([[25.,  3.],
                [ 3.,  1.]], dtype=torch.float64)
    """
    flat_K = [value.detach().reshape(-1) for value in values_K]
    parts_L = [torch.zeros(len(flat_K), len(flat_K), dtype=torch.float64)]
    for leaf in leaves(flat_K[0].numel()):
        leaf_KB = torch.stack([value[leaf].double() for value in flat_K])
        # G = X X^T
        parts_L.append((leaf_KB @ leaf_KB.T).cpu())
    return pairwise_sum(parts_L)
