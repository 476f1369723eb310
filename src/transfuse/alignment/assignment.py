"""The best order of one family of symbols: a linear assignment, nested where units lie within blocks.

Dimensions in tensor names: G blocks, U units (of a symbol without blocks, or within one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from transfuse.alignment.specification import Symbol


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How alike units of one network are to units of the other.

    Attributes:
        outer_GG: of the symbol itself.
        within: symbols within blocks -> (G, G, U, U): of units of a block of one with units of a block of the other.
    """

    outer_GG: Tensor
    within: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def zero(cls, symbol: Symbol, within: Sequence[Symbol]) -> Similarity:
        """No unit like any other."""
        blocks = symbol.size
        return cls(
            outer_GG=torch.zeros(blocks, blocks, dtype=torch.float64),
            within={
                inner.name: torch.zeros(blocks, blocks, inner.size, inner.size, dtype=torch.float64) for inner in within
            },
        )

    def add(self, symbol: Symbol, symbols: Sequence[str | None], first: Tensor, second: Tensor) -> None:
        """Adds the inner products of the units of two tensors in factors, over all other factors.

        Args:
            symbol: of this family.
            symbols: of the tensors' factors.
            first: of the reference.
            second: of the other, of one shape with the first.
        """
        dims = [dim for dim, name in enumerate(symbols) if name == symbol.name]
        inner = [(dim, name) for dim, name in enumerate(symbols) if name in self.within]
        if dims and not inner:
            for dim in dims:
                self.outer_GG.add_(_products(first, second, (dim,)))
        for dim, name in inner:
            assert name is not None
            blocks, units = first.shape[dims[0]], first.shape[dim]
            found = _products(first, second, (dims[0], dim)).reshape(blocks, units, blocks, units)
            self.within[name].add_(found.transpose(1, 2))


def best_orders(symbol: Symbol, similarity: Similarity) -> dict[str, Tensor]:
    """The orders of a family that make the other network most alike.

    Blocks are matched by the similarity of their best inner orders, so that both are found at once.

    Returns:
        Symbol -> (G,), or (G, U) for units within blocks.
    """
    total_GG = similarity.outer_GG.clone()
    inner: dict[str, Tensor] = {}
    for name, similar_GGUU in similarity.within.items():
        inner[name], values_GG = _all_pairs(similar_GGUU)
        total_GG += values_GG
    order_G = assign(total_GG)
    rows = torch.arange(len(order_G))
    return {symbol.name: order_G} | {name: orders_GGU[rows, order_G] for name, orders_GGU in inner.items()}


def assign(similar_UU: Tensor) -> Tensor:
    """(U,) the order of the columns with the largest sum of similarities.

    Example:
        >>> assign(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        tensor([1, 0])
    """
    _, columns = linear_sum_assignment(similar_UU.numpy(), maximize=True)
    return torch.from_numpy(columns).long()


def _all_pairs(similar_GGUU: Tensor) -> tuple[Tensor, Tensor]:
    """The best order within each pair of blocks, (G, G, U), and its similarity, (G, G)."""
    blocks, _, units, _ = similar_GGUU.shape
    pairs = similar_GGUU.reshape(blocks * blocks, units, units)
    orders = torch.stack([assign(similar_UU) for similar_UU in pairs])
    values = pairs.gather(2, orders[:, :, None]).sum(dim=(1, 2))
    return orders.reshape(blocks, blocks, units), values.reshape(blocks, blocks)


def _products(first: Tensor, second: Tensor, dims: tuple[int, ...]) -> Tensor:
    rows_first, rows_second = (_rows(tensor, dims) for tensor in (first, second))
    return rows_first @ rows_second.T


def _rows(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The factors `dims` as rows, all others as columns."""
    moved = tensor.movedim(dims, tuple(range(len(dims))))
    return moved.reshape(moved.shape[: len(dims)].numel(), -1)


def shuffled(
    items: Sequence[tuple[Symbol, tuple[Symbol, ...]]], generator: torch.Generator
) -> Iterator[tuple[Symbol, tuple[Symbol, ...]]]:
    """The items in random order."""
    return (items[index] for index in torch.randperm(len(items), generator=generator).tolist())


def composed(before: Mapping[str, Tensor], orders: Mapping[str, Tensor], symbol: Symbol) -> dict[str, Tensor]:
    """`before`, then `orders` of one family."""
    outer_G = orders[symbol.name]
    found = {symbol.name: before[symbol.name][outer_G]}
    for name, order_GU in orders.items():
        if name != symbol.name:
            found[name] = before[name][outer_G].gather(1, order_GU)
    return dict(before) | found
