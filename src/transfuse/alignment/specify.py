"""The permutation specification of a network: traced, checked, and tried with a random permutation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, product

import torch
from torch import Tensor, nn

from transfuse.alignment.axes import INHERENT, Axes, Axis, find, fix, pieces
from transfuse.alignment.specification import Activation, Specification, Symbol, View
from transfuse.alignment.tracing import Trace, trace
from transfuse.alignment.verification import verify
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError, TransfuseError


class NothingToAlignError(TransfuseError):
    """No axis of the network can be permuted."""


def specify(
    network: nn.Module,
    inputs: Tensor,
    generator: torch.Generator,
    held: Mapping[str, str] | None = None,
) -> Specification:
    """Which units of a network may be permuted without changing what it computes.

    The network is run once; axes that an operation couples are united, and what an unknown operation touches is held. A
    random permutation is then tried: outputs must stay as they are.

    Args:
        network: maps inputs to a tensor, or to a mapping of them.
        inputs: (N, ...) a few examples, N >= 2.
        generator: of the permutation that is tried.
        held: patterns of symbols -> `fixed`.

    Raises:
        NothingToAlignError: every axis is held.
        AlignmentError: a permutation changes the outputs; names the symbols.
        HyperparameterError: a pattern of `held` matches no symbol.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> specification = specify(network, torch.randn(2, 4), torch.Generator())
        >>> [(view.key, view.symbols) for view in specification.views]
        [('0.weight', ('0.weight@0', None)), ('0.bias', ('0.weight@0',)), ('2.weight', (None, '0.weight@0'))]
    """
    found = _specification(trace(network, inputs), network)
    found = found.without(_named(found, held or {}))
    if not found.symbols:
        fixed = f" Held: {'; '.join(found.fixed)}." if found.fixed else ""
        raise NothingToAlignError(
            f"The network has no hidden units that can be permuted.{fixed} Did you mean align=none?"
        )
    verify(network, found, inputs, generator)
    return found


def _named(specification: Specification, held: Mapping[str, str]) -> list[str]:
    names: list[str] = []
    for pattern, value in held.items():
        if value != "fixed":
            raise HyperparameterError(f"`spec` should map names of symbols to fixed. Found `spec.{pattern} = {value}`.")
        matching = [name for name in specification.symbols if fnmatchcase(name, pattern)]
        if not matching:
            raise HyperparameterError(
                f"`spec` should name symbols. Found `spec = {pattern}`, which matches none."
                f"{nearest(pattern, list(specification.symbols))}"
            )
        names += matching
    return names


def _specification(found: Trace, network: nn.Module) -> Specification:
    state = network.state_dict(keep_vars=True)
    keys = [key for key in state if key in found.parameters]
    _hold_strays(found.parameters)
    names = _names(keys, found.parameters)
    symbols = {
        name: Symbol(name=name, size=axis.size, parent=names[find(axis.parent)] if axis.parent is not None else None)
        for axis, name in names.items()
    }
    views = tuple(view for key in keys for view in _views(key, found.parameters[key], names))
    first = {id(state[key]): key for key in reversed(keys)}
    return Specification(
        symbols=symbols,
        views=views,
        aliases={key: first[id(value)] for key, value in state.items() if first.get(id(value), key) != key},
        activations=tuple(_activations(found.calls, names)),
        fixed=tuple(_held(keys, found.parameters)),
    )


def _hold_strays(parameters: Mapping[str, Axes]) -> None:
    """Units within blocks can be ordered block by block only in tensors that have the axis of blocks too."""
    held = True
    while held:
        held = False
        for axes in parameters.values():
            for parts in _parts(axes):
                present = [leaf for part in parts for leaf in part.leaves]
                for leaf in present:
                    if leaf.fixed is None and leaf.parent is not None and find(leaf.parent) not in present:
                        fix(leaf, "an axis that has lost the blocks it was in")
                        held = True


def _names(keys: Sequence[str], parameters: Mapping[str, Axes]) -> dict[Axis, str]:
    """Free atoms, blocks before what is within them, named by the first tensor that carries them."""
    names: dict[Axis, str] = {}
    for key in keys:
        for place, axis in enumerate(parameters[key]):
            for leaf in (leaf for piece in pieces(axis) for leaf in map(find, piece)):
                if leaf.fixed is None and leaf not in names:
                    name = f"{key}@{place}{'' if leaf.parent is None else '/within'}"
                    again = sum(other == name or other.startswith(f"{name}-") for other in names.values())
                    names[leaf] = name if not again else f"{name}-{again + 1}"
    return names


@dataclass(frozen=True)
class _Part:
    """One piece of an axis: where it lies, and its factors."""

    start: int
    stop: int
    leaves: tuple[Axis, ...]


def _parts(axes: Axes) -> Iterator[tuple[_Part, ...]]:
    """The rectangular parts of a tensor: one piece of each axis."""
    cut: list[list[_Part]] = []
    for axis in axes:
        found = [tuple(map(find, piece)) for piece in pieces(axis)]
        sizes = [math.prod(leaf.size for leaf in piece) for piece in found]
        ends = list(accumulate(sizes))
        cut.append([_Part(end - size, end, piece) for end, size, piece in zip(ends, sizes, found, strict=True)])
    yield from product(*cut)


def _views(key: str, axes: Axes, names: Mapping[Axis, str]) -> Iterator[View]:
    for parts in _parts(axes):
        leaves = [leaf for part in parts for leaf in part.leaves]
        if any(leaf in names for leaf in leaves):
            yield View(
                key=key,
                start=tuple(part.start for part in parts),
                stop=tuple(part.stop for part in parts),
                shape=tuple(leaf.size for leaf in leaves),
                symbols=tuple(names.get(leaf) for leaf in leaves),
            )


def _activations(calls: Mapping[int, Axes], names: Mapping[Axis, str]) -> Iterator[Activation]:
    """Calls whose result carries a symbol; those of concatenated pieces are left out, the pieces are there before."""
    for index, axes in calls.items():
        found = list(_parts(axes))
        if len(found) > 1:
            continue
        leaves = [leaf for part in found[0] for leaf in part.leaves]
        present = {names[leaf] for leaf in leaves if leaf in names}
        lost = any(leaf.parent is not None and find(leaf.parent) not in leaves for leaf in leaves if leaf in names)
        if present and not lost:
            shape = tuple(tuple(leaf.size for leaf in part.leaves) for part in found[0])
            yield Activation(call=index, shape=shape, symbols=tuple(names.get(leaf) for leaf in leaves))


def _held(keys: Sequence[str], parameters: Mapping[str, Axes]) -> Iterator[str]:
    """Axes of more than one position that something other than the network's ends and its positions holds."""
    for key in keys:
        for place, axis in enumerate(parameters[key]):
            leaves = [find(leaf) for piece in pieces(axis) for leaf in piece]
            reasons = [leaf.fixed for leaf in leaves if leaf.fixed is not None and leaf.fixed not in INHERENT]
            if reasons and find(axis).size > 1:
                yield f"{key}@{place} ({reasons[0]})"
