"""`align=activation_matching`: units are matched that respond alike to the same inputs.

Dimensions in tensor names: N examples (and positions), U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.alignment.assignment import Similarity, best_orders
from transfuse.alignment.matcher import Matcher, Pair, require_positive
from transfuse.alignment.specification import Activation, Specification, Symbol
from transfuse.alignment.tracing import replay
from transfuse.alignment.weight_matching import match_weights
from transfuse.types import HyperparameterError

_BATCH = 256


def match_activations(
    specification: Specification, reference: nn.Module, other: nn.Module, inputs: Tensor
) -> dict[str, Tensor]:
    """The permutation with the largest correlation between units that are matched.

    C is the correlation over examples (and positions) of the activations at the symbol, summed over the places where it
    occurs; each symbol is one linear assignment. Units that never vary correlate with nothing.

    Args:
        specification: of both networks.
        reference: in any mode; run in evaluation mode.
        other: of the same architecture.
        inputs: (N, ...) examples, N >= 2.

    Returns:
        Symbol -> its order; symbols that no call's result carries stay.

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, 2209.04836, section 3.1; Li et al. 2016, 1511.07543.
    """
    families = [(symbol, within) for symbol, within in specification.families()]
    moments = [
        [_Moments(activation, symbol, within) for activation in specification.activations]
        for symbol, within in families
    ]
    wanted = frozenset(activation.call for activation in specification.activations)
    for batch in torch.split(inputs, _BATCH):
        first, second = replay(reference, batch, wanted), replay(other, batch, wanted)
        for found in (each for row in moments for each in row if each.dims):
            found.add(first[found.activation.call], second[found.activation.call])
    permutation = specification.identity()
    for (symbol, within), row in zip(families, moments, strict=True):
        similarity = Similarity.zero(symbol, within)
        for each in (each for each in row if each.dims):
            each.add_to(similarity)
        permutation |= best_orders(symbol, similarity)
    return permutation


@dataclass
class _Sums:
    """Sums over samples of both networks' units."""

    first_U: Tensor
    second_U: Tensor
    squares_first_U: Tensor
    squares_second_U: Tensor
    products_UU: Tensor
    count: int = 0


class _Moments:
    """What one call's result says about one family."""

    def __init__(self, activation: Activation, symbol: Symbol, within: Sequence[Symbol]) -> None:
        self.activation = activation
        symbols = activation.symbols
        names = {inner.name for inner in within}
        inner = [dim for dim, name in enumerate(symbols) if name in names]
        outer = [dim for dim, name in enumerate(symbols) if name == symbol.name]
        self.dims = (outer[0], *inner[:1]) if outer else ()  # a result with two inner orders tells one of them
        sizes = {each.name: each.size for each in (symbol, *within)}
        self.shape = tuple(sizes[symbols[dim] or ""] for dim in self.dims)
        self.inner = symbols[inner[0]] if outer and inner else None
        self._sums: _Sums | None = None

    def add(self, first: Tensor, second: Tensor) -> None:
        """One batch of both networks."""
        rows_UN, others_UN = (self._rows(tensor) for tensor in (first, second))
        if self._sums is None:
            zero_U = torch.zeros(len(rows_UN), dtype=torch.float64)
            zero_UU = torch.zeros(len(rows_UN), len(rows_UN), dtype=torch.float64)
            self._sums = _Sums(zero_U, zero_U, zero_U, zero_U, zero_UU)
        sums = self._sums
        sums.first_U = sums.first_U + rows_UN.sum(1)
        sums.second_U = sums.second_U + others_UN.sum(1)
        sums.squares_first_U = sums.squares_first_U + rows_UN.square().sum(1)
        sums.squares_second_U = sums.squares_second_U + others_UN.square().sum(1)
        sums.products_UU = sums.products_UU + rows_UN @ others_UN.T
        sums.count += rows_UN.shape[1]

    def add_to(self, similarity: Similarity) -> None:
        """Adds the correlations."""
        sums = self._sums
        assert sums is not None, "every call is replayed"
        count = sums.count
        # r = (E xy - E x E y) / (sd x sd y)
        covariance_UU = sums.products_UU / count - torch.outer(sums.first_U, sums.second_U) / count**2
        correlation_UU = covariance_UU * _inverse_deviation(sums.squares_first_U, sums.first_U, count)[:, None]
        correlation_UU *= _inverse_deviation(sums.squares_second_U, sums.second_U, count)
        if self.inner is None:
            similarity.outer_GG.add_(correlation_UU)
            return
        blocks, units = self.shape
        similarity.within[self.inner].add_(correlation_UU.reshape(blocks, units, blocks, units).transpose(1, 2))

    def _rows(self, tensor: Tensor) -> Tensor:
        moved = self.activation.of(tensor).double().movedim(self.dims, tuple(range(len(self.dims))))
        return moved.reshape(moved.shape[: len(self.dims)].numel(), -1)


def _inverse_deviation(squares_U: Tensor, sums_U: Tensor, count: int) -> Tensor:
    """1 / sd; 0 for units whose variance is rounding error."""
    second_moment_U = squares_U / count
    variance_U = second_moment_U - (sums_U / count).square()
    varies_U = variance_U > 1e-12 * second_moment_U
    return torch.where(varies_U, variance_U.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 0.0)


@dataclass(frozen=True, kw_only=True)
class ActivationMatching(Matcher):
    """See `match_activations`.

    Units whose activations no call returns (queries within nn.MultiheadAttention) are matched by their weights, after
    all others.

    Attributes:
        examples: of the training data, >= 2; all, where there are fewer.
    """

    examples: int = 1024

    def __post_init__(self) -> None:
        require_positive("examples", self.examples)
        if self.examples < 2:
            raise HyperparameterError(f"`examples` should be >= 2. Found `examples = {self.examples}`.")

    def match(self, pair: Pair) -> dict[str, Tensor]:
        """The order of every symbol."""
        chosen = torch.randperm(len(pair.inputs), generator=pair.generator)[: self.examples]
        specification = pair.specification
        found = match_activations(specification, pair.reference, pair.other, pair.inputs[chosen])
        seen = [name for activation in specification.activations for name in activation.symbols if name is not None]
        hidden = specification.without(seen)
        if not hidden.symbols:
            return found
        permuted = specification.apply(pair.other.state_dict(), found)
        return found | match_weights(hidden, pair.reference.state_dict(), permuted, pair.generator)
