"""Moves the units of one network onto those of another, layer by layer: the alignment of OT fusion."""

from __future__ import annotations

from torch import Tensor, nn

from transfuse.alignment.incoming import Incoming, incoming, unmixable
from transfuse.alignment.specification import Specification
from transfuse.alignment.transport import ExactTransport, SoftTransport, Transport
from transfuse.alignment.unit_distances import Family, WeightDistances, activation_distances
from transfuse.types import IncompatibleStrategyError

_PASSES = 10  # residual streams and grouped convolutions; all other networks end after one
_TRACED = 4  # examples


def transport_units(
    specification: Specification,
    reference: nn.Module,
    other: nn.Module,
    inputs: Tensor,
    *,
    by_activations: bool = False,
    regularization: float = 0.0,
) -> dict[str, Tensor]:
    """The other network's weights with its units moved onto the reference's by optimal transport.

    Units are moved in the order in which they come about. The cost of moving unit j onto unit i is the Euclidean
    distance of their incoming weights, with bias, scale and shift, their own inputs being moved already; or the root
    mean square difference of their activations. A stream that several layers write to is moved by those whose inputs
    are, and again with all of them, until nothing changes or ten times.

    Args:
        specification: of both networks.
        reference: stays as it is.
        other: of the same architecture; not changed.
        inputs: (N, ...) examples, N >= 2: their activations are compared; for weights alone a few are enough.
        by_activations: what the cost is. Units that no call returns are moved by their weights all the same.
        regularization: 0 for assignments; > 0, in mean costs of each family, for entropic transport.

    Returns:
        The state dict of `other`: permuted, or units as means of units.

    Raises:
        IncompatibleStrategyError: entropic transport of units that it has no meaning for, see `check_soft`.
        TransportError: `regularization` is too small.

    Example:
        >>> import torch
        >>> from transfuse.alignment import specify
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> specification = specify(network, torch.randn(2, 4), torch.Generator())
        >>> found = transport_units(specification, network, network, torch.randn(2, 4))
        >>> torch.equal(found["0.weight"], network[0].weight)
        True

    Reference:
        Singh & Jaggi 2020, "Model Fusion via Optimal Transport", 1910.05653, algorithm 1.
    """
    made = incoming(other, specification, inputs[:_TRACED])
    transport = _transport(specification, made, regularization)
    families = sorted(specification.families(), key=lambda family: _place(family, made))
    found = activation_distances(specification, families, reference, other, inputs) if by_activations else {}
    for symbol, _ in families:
        if symbol.name in found:
            transport.update(symbol, found[symbol.name])
    left = [each for each in families if each[0].name not in found]
    known = {each.name for symbol, within in families if symbol.name in found for each in (symbol, *within)}
    weights = WeightDistances(specification, made, reference.state_dict(), other.state_dict(), transport, known)
    for _ in range(_PASSES):
        changes = [transport.update(family[0], weights.of(family)) for family in left]
        if not (weights.late and any(changes)):
            break
    return transport.apply(other.state_dict())


def _transport(specification: Specification, made: Incoming, regularization: float) -> Transport:
    if regularization == 0:
        return ExactTransport(specification)
    check_soft(specification, made)
    return SoftTransport(specification, regularization)


def check_soft(specification: Specification, made: Incoming) -> None:
    """Raises unless means of units can stand for units.

    Layers and residual streams take means for what they are: a stream `h + f(h)` becomes `T h + T f(h)`. Attention
    multiplies units by each other, and units within blocks (heads, groups) belong to their block: a mean of two heads
    scores queries of one with keys of the other.

    Raises:
        IncompatibleStrategyError: with the units or calls.
    """
    found = unmixable(specification, made)
    if not found:
        return
    raise IncompatibleStrategyError(
        f"With `regularization` > 0 units become means of units, which attention heads and groups cannot be. "
        f"Found {' and '.join(found)}. Did you mean regularization=0?"
    )


def _place(family: Family, made: Incoming) -> int:
    symbol, within = family
    return min(made.order.index(each.name) for each in (symbol, *within))
