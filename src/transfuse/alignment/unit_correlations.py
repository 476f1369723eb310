"""How alike the units of several networks respond to the same inputs.

Dimensions in tensor names: U units of a network, J units of all networks, N examples (and positions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from transfuse.alignment.specification import Activation, Specification
from transfuse.alignment.tracing import replay

_BATCH = 256


def unit_correlations(
    specifications: Sequence[Specification], networks: Sequence[nn.Module], inputs: Tensor
) -> dict[str, Tensor]:
    """The correlation over examples (and positions) of units, in the mean over the places where they occur.

    Units that never vary correlate with nothing.

    Args:
        specifications: one a network; symbols without blocks are looked at.
        networks: K of one architecture, whose heads may differ; run in evaluation mode.
        inputs: (N, ...) examples, N >= 2.

    Returns:
        Symbol of the first specification -> (K U, K U) in float64, network by network. Symbols that no call's result
        carries alone are left out.

    Example:
        >>> from transfuse.alignment import specify
        >>> network, inputs = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(9, 4)
        >>> specification = specify(network, inputs[:2], torch.Generator())
        >>> unit_correlations([specification] * 2, [network] * 2, inputs)["0.weight@0"].shape
        torch.Size([16, 16])
    """
    names = [name for name, symbol in specifications[0].symbols.items() if symbol.parent is None]
    places = {name: _places(specifications, name) for name in names}
    wanted = [
        frozenset(place.activations[index].call for found in places.values() for place in found)
        for index in range(len(networks))
    ]
    for batch in torch.split(inputs, _BATCH):
        results = [replay(network, batch, calls) for network, calls in zip(networks, wanted, strict=True)]
        for place in (place for found in places.values() for place in found):
            place.add(results)
    return {
        name: torch.stack([place.correlation() for place in found]).mean(dim=0)
        for name, found in places.items()
        if found
    }


def _places(specifications: Sequence[Specification], name: str) -> list[_Place]:
    """Calls that all networks make: they share their backbone, whose calls come before those of heads."""
    found = [
        [each for each in specification.activations if [symbol for symbol in each.symbols if symbol] == [name]]
        for specification in specifications
    ]
    return [_Place(activations) for activations in zip(*found, strict=False)]


class _Place:
    """One call in each of the networks."""

    def __init__(self, activations: Sequence[Activation]) -> None:
        self.activations = activations
        self._sums_J: Tensor | float = 0.0
        self._products_JJ: Tensor | float = 0.0
        self._count = 0

    def add(self, results: Sequence[Mapping[int, Tensor]]) -> None:
        """One batch."""
        rows_JN = torch.cat(
            [_rows(activation, found) for activation, found in zip(self.activations, results, strict=True)]
        )
        self._sums_J = self._sums_J + rows_JN.sum(dim=1)
        self._products_JJ = self._products_JJ + rows_JN @ rows_JN.T
        self._count += rows_JN.shape[1]

    def correlation(self) -> Tensor:
        """`r = (E xy - E x E y) / (sd x sd y)`; 0 for units whose variance is rounding error."""
        assert isinstance(self._products_JJ, Tensor) and isinstance(self._sums_J, Tensor), "every call is replayed"
        mean_J, squares_J = self._sums_J / self._count, self._products_JJ.diagonal() / self._count
        variance_J = squares_J - mean_J.square()
        tiny = torch.finfo(torch.float64).tiny
        inverse_J = torch.where(variance_J > 1e-12 * squares_J, variance_J.clamp_min(tiny).rsqrt(), 0.0)
        covariance_JJ = self._products_JJ / self._count - torch.outer(mean_J, mean_J)
        return covariance_JJ * inverse_J[:, None] * inverse_J


def _rows(activation: Activation, found: Mapping[int, Tensor]) -> Tensor:
    """(U, N)."""
    dim = next(index for index, name in enumerate(activation.symbols) if name is not None)
    return activation.of(found[activation.call]).double().movedim(dim, 0).flatten(1)
