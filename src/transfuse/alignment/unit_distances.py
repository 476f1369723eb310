"""How far units of one network are from those of another: by the weights that make them, or by how they respond.

Dimensions in tensor names: G blocks (units of a symbol without blocks), U units, F features, N examples (and
positions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from transfuse.alignment.assignment import Similarity
from transfuse.alignment.incoming import Incoming
from transfuse.alignment.specification import Activation, Specification, Symbol, View
from transfuse.alignment.tracing import replay
from transfuse.alignment.transport import Transport
from transfuse.state_dict import batch_norm_statistics

_BATCH = 256

Family = tuple[Symbol, tuple[Symbol, ...]]


class WeightDistances:
    """`D_ij = ||a_i - b_j||` over the incoming weights of units, whose own inputs have been moved.

    Args:
        specification: of both networks.
        made: which tensors are incoming.
        reference: its state dict.
        other: the state dict whose units are moved.
        transport: where they are by now.
        known: symbols that have been moved already.
    """

    def __init__(
        self,
        specification: Specification,
        made: Incoming,
        reference: Mapping[str, Tensor],
        other: Mapping[str, Tensor],
        transport: Transport,
        known: Iterable[str],
    ) -> None:
        statistics = batch_norm_statistics(other)  # these follow the weights: no say, whatever their scale
        shared = (reference.keys() & other.keys()) - {*statistics, *statistics.values()}
        self.late = False  # whether weights were left out, as their inputs had not been moved
        self._views = [view for view in specification.views if view.key in shared]
        self._made, self._transport, self._known = made, transport, set(known)
        self._reference, self._other = reference, other

    def of(self, family: Family) -> Similarity:
        """Of a family's units as they have been moved; of blocks, by what is not within them."""
        symbol, within = family
        names = [each.name for each in (symbol, *within)]
        distances = Similarity.zero(symbol, within)
        for each in (symbol, *within):
            views = self._incoming(family, each)
            if views:
                pairs = [self._rows(view, symbol, each, names) for view in views]
                first_UF, second_UF = (torch.cat(side, dim=1) for side in zip(*pairs, strict=True))
                _enter(distances, symbol, each, torch.cdist(first_UF, second_UF))
        self._known.update(names)
        return distances

    def _incoming(self, family: Family, each: Symbol) -> list[View]:
        """Tensors that make these units; all that have them, where the run has not shown any."""
        symbol, within = family
        inner = {other.name for other in within}
        carrying = [
            view
            for view in self._views
            if view.symbols.count(symbol.name) == 1  # a layer from a stream to itself follows
            and (each.name in view.symbols if each is not symbol else not inner.intersection(view.symbols))
        ]
        made = [view for view in carrying if view.key in self._made.keys[each.name]]
        if not made and (each is not symbol or not within):
            made = carrying
        moved = self._known | {symbol.name, each.name, None}
        ready = [view for view in made if moved.issuperset(view.symbols)]
        self.late = self.late or len(ready) < len(made)
        return ready or made

    def _rows(self, view: View, symbol: Symbol, each: Symbol, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Units of both networks with one tensor's features, (U, F)."""
        dims = [view.symbols.index(name) for name in dict.fromkeys((symbol.name, each.name))]
        second = self._transport.moved(view.of(self._other[view.key]).double(), view.symbols, names)
        return _flat(view.of(self._reference[view.key]).double(), dims), _flat(second, dims)


def activation_distances(
    specification: Specification,
    families: Sequence[Family],
    reference: nn.Module,
    other: nn.Module,
    inputs: Tensor,
) -> dict[str, Similarity]:
    """`D_ij^2 = sum over calls of mean_n (a_in - b_jn)^2`, over examples and positions.

    Args:
        specification: of both networks.
        families: of it.
        reference: in any mode; run in evaluation mode.
        other: of the same architecture.
        inputs: (N, ...).

    Returns:
        Symbol of each family, all of whose units some call returns -> distances.
    """
    places = [
        place
        for family in families
        for activation in specification.activations
        for place in _Place.all(activation, family)
    ]
    wanted = frozenset(place.activation.call for place in places)
    for batch in torch.split(inputs, _BATCH):
        first, second = replay(reference, batch, wanted), replay(other, batch, wanted)
        for place in places:
            place.add(first[place.activation.call], second[place.activation.call])
    found: dict[str, Similarity] = {}
    for symbol, within in families:
        own = [place for place in places if place.family[0] is symbol]
        if {place.each.name for place in own}.issuperset(inner.name for inner in within or (symbol,)):
            found[symbol.name] = _summed(symbol, within, own)
    return found


def _summed(symbol: Symbol, within: tuple[Symbol, ...], places: Sequence[_Place]) -> Similarity:
    distances = Similarity.zero(symbol, within)
    for each in (symbol, *within):
        squares = [place.mean() for place in places if place.each is each]
        if squares:
            _enter(distances, symbol, each, torch.stack(squares).sum(dim=0).sqrt())
    return distances


class _Place:
    """One call's result as it tells some units of a family from each other."""

    def __init__(self, activation: Activation, family: Family, each: Symbol) -> None:
        names = dict.fromkeys((family[0].name, each.name))
        self.activation, self.family, self.each = activation, family, each
        self._dims = [activation.symbols.index(name) for name in names]
        self._squares_UU: Tensor | float = 0.0
        self._count = 0

    @classmethod
    def all(cls, activation: Activation, family: Family) -> list[_Place]:
        """Those of a call: of the blocks, or of units within them."""
        symbol, within = family
        if symbol.name not in activation.symbols:
            return []
        inner = [each for each in within if each.name in activation.symbols]
        return [cls(activation, family, each) for each in inner or [symbol]]

    def add(self, first: Tensor, second: Tensor) -> None:
        """One batch of both networks."""
        rows_UN, others_UN = (_flat(self.activation.of(tensor).double(), self._dims) for tensor in (first, second))
        self._squares_UU = self._squares_UU + torch.cdist(rows_UN, others_UN).square()
        self._count += rows_UN.shape[1]

    def mean(self) -> Tensor:
        """(U, U) mean squared differences."""
        assert isinstance(self._squares_UU, Tensor), "every call is replayed"
        return self._squares_UU / self._count


def _flat(part: Tensor, dims: Sequence[int]) -> Tensor:
    """The factors `dims` as rows, all others as columns."""
    moved = part.movedim(tuple(dims), tuple(range(len(dims))))
    return moved.reshape(moved.shape[: len(dims)].numel(), -1)


def _enter(distances: Similarity, symbol: Symbol, each: Symbol, found_UU: Tensor) -> None:
    if each is symbol:
        distances.outer_GG.copy_(found_UU)
        return
    blocks, units = symbol.size, each.size
    distances.within[each.name].copy_(found_UU.reshape(blocks, units, blocks, units).transpose(1, 2))
