"""`align=weight_matching`: the permutation that brings the weights of one network nearest to those of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.alignment.assignment import Similarity, best_orders, composed, shuffled
from transfuse.alignment.matcher import Matcher, Pair, require_positive
from transfuse.alignment.specification import Permutation, Specification, Symbol
from transfuse.state_dict import batch_norm_statistics

_LEAST_GAIN = 1e-12  # of the product of both norms
_SWEEPS = 100  # published runs end after about ten


def match_weights(
    specification: Specification,
    reference: Mapping[str, Tensor],
    other: Mapping[str, Tensor],
    generator: torch.Generator,
    *,
    restarts: int = 1,
    start: Permutation | None = None,
) -> dict[str, Tensor]:
    """The permutation with the largest `<reference, permuted other>`: the least squared distance.

    Coordinate descent: the symbols in random order, each by a linear assignment of `C = sum over (tensor, axis) A_axis
    B_axis^T` with all other axes in their present order, until a sweep improves nothing.

    Args:
        specification: of both networks.
        reference: its state dict.
        other: the state dict that is permuted; not changed.
        generator: of the symbols' order.
        restarts: descents in other orders; the best one counts.
        start: the order to begin with; None: as it is.

    Returns:
        Symbol -> its order, for `Specification.apply`.

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2209.04836,
        algorithm 1.
    """
    found = [_Descent(specification, reference, other, start).run(generator) for _ in range(restarts)]
    return max(found, key=lambda descent: descent.value).permutation


class _Descent:
    """One coordinate descent: the parts of both networks in float64, the other's in their present order."""

    def __init__(
        self,
        specification: Specification,
        reference: Mapping[str, Tensor],
        other: Mapping[str, Tensor],
        start: Permutation | None,
    ) -> None:
        self.specification = specification
        self.permutation: dict[str, Tensor] = specification.identity() | dict(start or {})
        statistics = batch_norm_statistics(other)  # these follow the weights: no say, whatever their scale
        shared = (reference.keys() & other.keys()) - {*statistics, *statistics.values()}
        views = [view for view in specification.views if view.key in shared]
        self.symbols = [view.symbols for view in views]
        self.first = [view.of(reference[view.key]).double() for view in views]
        self.second = [
            specification.ordered(view.of(other[view.key]).double(), view.symbols, self.permutation) for view in views
        ]
        norms = (sum(float(part.square().sum()) for part in parts) for parts in (self.first, self.second))
        first_squared, second_squared = norms
        self.least = _LEAST_GAIN * (first_squared * second_squared) ** 0.5

    @property
    def value(self) -> float:
        """The inner product of both networks."""
        return sum(self._inner(index) for index in range(len(self.first)))

    def run(self, generator: torch.Generator) -> _Descent:
        """Sweeps until nothing improves."""
        families = list(self.specification.families())
        for _ in range(_SWEEPS):
            gains = [self._improve(symbol, within) for symbol, within in shuffled(families, generator)]
            if not any(gains):
                break
        return self

    def _improve(self, symbol: Symbol, within: tuple[Symbol, ...]) -> bool:
        carrying = [index for index, symbols in enumerate(self.symbols) if symbol.name in symbols]
        similarity = Similarity.zero(symbol, within)
        for index in carrying:
            similarity.add(symbol, self.symbols[index], self.first[index], self.second[index])
        orders = best_orders(symbol, similarity)
        before = sum(map(self._inner, carrying))
        kept = {index: self.second[index] for index in carrying}
        for index in carrying:
            self.second[index] = self.specification.ordered(kept[index], self.symbols[index], orders)
        # a tensor that carries the symbol on two axes makes the assignment an approximation: only a true gain counts
        if sum(map(self._inner, carrying)) - before <= self.least:
            for index, part in kept.items():
                self.second[index] = part
            return False
        self.permutation = composed(self.permutation, orders, symbol)
        return True

    def _inner(self, index: int) -> float:
        return float((self.first[index] * self.second[index]).sum())


@dataclass(frozen=True, kw_only=True)
class WeightMatching(Matcher):
    """See `match_weights`; needs no data.

    Attributes:
        restarts: descents in other orders, >= 1; the best one counts.
    """

    restarts: int = 1

    def __post_init__(self) -> None:
        require_positive("restarts", self.restarts)

    def match(self, pair: Pair) -> dict[str, Tensor]:
        """The order of every symbol."""
        return match_weights(
            pair.specification,
            pair.reference.state_dict(),
            pair.other.state_dict(),
            pair.generator,
            restarts=self.restarts,
        )
