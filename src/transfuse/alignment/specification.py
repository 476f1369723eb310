"""Which positions of which tensors of a network may be permuted together: symbols, and the tensors that carry them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transfuse.state_dict import batch_norm_statistics

Permutation = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """A set of interchangeable units.

    Attributes:
        name: `<tensor>@<axis>` of the first tensor that carries it, `/within` after it for units within a block.
        size: how many units.
        parent: the symbol of the blocks; each of them has its own order of this symbol's units. None: one order.
    """

    name: str
    size: int
    parent: str | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor, or a rectangular part of one, with its axes split into factors.

    Attributes:
        key: of the tensor.
        start: first position on each axis.
        stop: one after the last.
        shape: of the factors, axis by axis, outer to inner.
        symbols: of each factor; None where the order is fixed.
    """

    key: str
    start: tuple[int, ...]
    stop: tuple[int, ...]
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...]

    def of(self, tensor: Tensor) -> Tensor:
        """The part, in factors."""
        return tensor[self.window].reshape(self.shape)

    @property
    def window(self) -> tuple[slice, ...]:
        """Where the part lies."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True, kw_only=True)
class Activation:
    """What a call returns, with its axes split into factors.

    Attributes:
        call: index of the call.
        shape: factors of each axis; one of a single factor is as long as it happens to be.
        symbols: of each factor.
    """

    call: int
    shape: tuple[tuple[int, ...], ...]
    symbols: tuple[str | None, ...]

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor in factors."""
        sizes = [
            size
            for found, parts in zip(tensor.shape, self.shape, strict=True)
            for size in ([found] if len(parts) == 1 else parts)
        ]
        return tensor.reshape(sizes)


@dataclass(frozen=True, kw_only=True)
class Specification:
    """All symbols of a network.

    Attributes:
        symbols: by name.
        views: the tensors that carry them.
        aliases: other keys of tied tensors -> the key that stands for them.
        activations: the calls whose results carry symbols.
        fixed: `<tensor>@<axis> (<where it was fixed>)`, for axes that something unknown keeps from being permuted.
    """

    symbols: Mapping[str, Symbol]
    views: tuple[View, ...]
    aliases: Mapping[str, str]
    activations: tuple[Activation, ...] = ()
    fixed: tuple[str, ...] = ()

    def families(self) -> Iterator[tuple[Symbol, tuple[Symbol, ...]]]:
        """Symbols without a parent, each with those that are ordered within its blocks."""
        for symbol in self.symbols.values():
            if symbol.parent is None:
                yield symbol, tuple(other for other in self.symbols.values() if other.parent == symbol.name)

    def identity(self) -> dict[str, Tensor]:
        """Every unit where it is: (n,), or (blocks, n) for units within blocks."""
        return {
            name: torch.arange(symbol.size).expand(*self._blocks(symbol), symbol.size).clone()
            for name, symbol in self.symbols.items()
        }

    def random(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Any order."""
        return {
            name: torch.rand(*self._blocks(symbol), symbol.size, generator=generator).argsort(dim=-1)
            for name, symbol in self.symbols.items()
        }

    def without(self, names: Sequence[str]) -> Specification:
        """The same with some symbols (and what is ordered within them) held."""
        dropped = {name for name, symbol in self.symbols.items() if name in names or symbol.parent in names}
        views = tuple(
            replace(view, symbols=tuple(None if name in dropped else name for name in view.symbols))
            for view in self.views
        )
        return replace(
            self,
            symbols={name: symbol for name, symbol in self.symbols.items() if name not in dropped},
            views=tuple(view for view in views if any(view.symbols)),
            fixed=(*self.fixed, *(f"{name} (held)" for name in self.symbols if name in dropped)),
        )

    def apply(self, state: Mapping[str, Tensor], permutation: Permutation) -> dict[str, Tensor]:
        """The state dict in another order: unit i of a symbol is now unit `permutation[symbol][i]` of before.

        Args:
            state: not changed; tensors without symbols are shared with the result.
            permutation: for every symbol; within blocks, row i is the order of the block that is now i-th.
        """
        permuted = dict(state)
        for view in self.views:
            if view.key not in state:
                continue
            if permuted[view.key] is state[view.key]:
                permuted[view.key] = state[view.key].clone()
            part = self.ordered(view.of(state[view.key]), view.symbols, permutation)
            window = permuted[view.key][view.window]
            window.copy_(part.reshape(window.shape))
        for alias, key in self.aliases.items():
            if alias in state and key in state:
                permuted[alias] = permuted[key]
        return permuted

    def ordered(self, part: Tensor, symbols: Sequence[str | None], permutation: Permutation) -> Tensor:
        """A part in factors in another order; symbols that the permutation does not name stay."""
        known = [(dim, name) for dim, name in enumerate(symbols) if name is not None and name in permutation]
        for dim, name in sorted(known, key=lambda item: self.symbols[item[1]].parent is not None):
            order = permutation[name]
            parent = self.symbols[name].parent
            if parent is None:
                part = part.index_select(dim, order)
                continue
            outer = symbols.index(parent)
            shape = [1] * part.dim()
            shape[outer], shape[dim] = order.shape
            index = (order if outer < dim else order.T).reshape(shape)
            part = part.take_along_dim(index.expand(*_broadcast(part.shape, dim)), dim=dim)
        return part

    def _blocks(self, symbol: Symbol) -> tuple[int, ...]:
        return () if symbol.parent is None else (self.symbols[symbol.parent].size,)


def _broadcast(shape: Sequence[int], dim: int) -> tuple[int, ...]:
    return tuple(-1 if index == dim else size for index, size in enumerate(shape))


def squared_distance(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """||a - b||^2 over the weights of both, in float64; running statistics are no weights."""
    statistics = batch_norm_statistics(first)
    left_out = {*statistics, *statistics.values()}
    return sum(
        float((value.double() - second[key].double()).square().sum())
        for key, value in first.items()
        if value.is_floating_point() and key in second and key not in left_out
    )
