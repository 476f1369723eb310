"""Optimal transport between the units of two networks, and what it does to weights.

Dimensions in tensor names: U units of the reference (rows) and of the other network (columns), V all units but one, G
blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfuse.alignment.assignment import Similarity, best_orders, composed
from transfuse.alignment.specification import Specification, Symbol
from transfuse.types import TransfuseError

_TOLERANCE = 1e-9  # of a unit's mass
_ROUNDS = 200  # at the regularization asked for; 0.003 mean costs between random units took fewer
_ANNEALING = 30  # rounds at each regularization on the way down
_SWEEPS = 10  # of Sinkhorn's iteration in a round, before a step of Newton's
_SHORTEST = 1e-6  # step
_TINY = 1e-300
_SAME = 1e-6  # largest change of a map that counts as none


class TransportError(TransfuseError):
    """Sinkhorn's iteration did not meet the marginals."""


def sinkhorn(cost_UU: Tensor, regularization: float) -> Tensor:
    """`argmin_T <T, C> + r sum_ij T_ij (log T_ij - 1)` over matrices whose rows and columns sum to 1.

    Sinkhorn's iteration on the logarithms, in float64, with steps of Newton's method on the dual where they bring the
    marginals nearer. r falls by halves to its value, each start where the last ended. T is n times the transport plan
    between uniform masses 1/n. As r -> 0 it becomes a permutation, as r -> infinity all its entries become 1/n.

    Args:
        cost_UU: of moving a unit of the other network (column) to one of the reference (row).
        regularization: r > 0, in the unit of the costs.

    Returns:
        (U, U) in float64; columns sum to 1, rows to 1 within 1e-9.

    Raises:
        TransportError: the marginals are not met; r is too small.

    Example:
        >>> sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 1.0)
        tensor([[0.7311, 0.2689],
                [0.2689, 0.7311]], dtype=torch.float64)

    Reference:
        Cuturi 2013, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", 1306.0895; Brauer et al. 2017,
        "A Sinkhorn-Newton method for entropic optimal transport".
    """
    cost_UU = cost_UU.double()
    row_U = cost_UU.new_zeros(len(cost_UU))
    present = max(regularization, float(cost_UU.max()))
    while present > regularization:
        row_U, _ = _scaled(cost_UU, row_U, present, _ANNEALING)
        present = max(regularization, present / 2)
    _, map_UU = _scaled(cost_UU, row_U, regularization, _ROUNDS)
    error = _row_error(map_UU)
    if not error <= _TOLERANCE:
        raise TransportError(
            f"`regularization = {regularization:.3g}` is too small for costs up to {float(cost_UU.max()):.3g}: a unit "
            f"misses {error:.1e} of its mass. Did you mean regularization=0, which is exact?"
        )
    return map_UU


def _scaled(cost_UU: Tensor, row_U: Tensor, regularization: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Potentials of the rows and the map, after so many rounds at most."""
    map_UU = cost_UU
    for _ in range(rounds):
        for _ in range(_SWEEPS):
            column_U = _columns(cost_UU, row_U, regularization)
            # f_i = -r log sum_j exp((g_j - C_ij) / r)
            row_U = -regularization * torch.logsumexp((column_U - cost_UU) / regularization, dim=1)
        map_UU = _map(cost_UU, row_U, regularization)
        if _row_error(map_UU) > _TOLERANCE:
            row_U, map_UU = _newton(cost_UU, row_U, map_UU, regularization)
        if _row_error(map_UU) <= _TOLERANCE:
            break
    return row_U, map_UU


def _columns(cost_UU: Tensor, row_U: Tensor, regularization: float) -> Tensor:
    # g_j = -r log sum_i exp((f_i - C_ij) / r)
    return -regularization * torch.logsumexp((row_U[:, None] - cost_UU) / regularization, dim=0)


def _map(cost_UU: Tensor, row_U: Tensor, regularization: float) -> Tensor:
    """Its columns sum to 1, whatever the potentials of the rows."""
    # T_ij = exp((f_i + g_j - C_ij) / r)
    return torch.softmax((row_U[:, None] - cost_UU) / regularization, dim=0)


def _newton(cost_UU: Tensor, row_U: Tensor, map_UU: Tensor, regularization: float) -> tuple[Tensor, Tensor]:
    """The longest of the steps 1, 1/2, 1/4, ... that brings the rows nearer to their sums; none where none does."""
    error, step_U = _row_error(map_UU), torch.zeros_like(row_U)
    # (diag(T 1) - T T^T) d = r (1 - T 1): a graph's Laplacian, whose diagonal is summed, as a difference would cancel
    shared_UU = (map_UU @ map_UU.T).fill_diagonal_(0.0)
    laplacian_UU = torch.diag(shared_UU.sum(dim=1)) - shared_UU
    # a constant d changes nothing: the last one is 0
    scale_V = laplacian_UU.diagonal()[:-1].clamp_min(_TINY).rsqrt()
    scaled_VV = laplacian_UU[:-1, :-1] * scale_V[:, None] * scale_V
    missing_V = regularization * (1.0 - map_UU.sum(dim=1)[:-1])
    step_U[:-1] = scale_V * torch.linalg.solve_ex(scaled_VV, scale_V * missing_V)[0]
    step_U -= step_U.mean()
    length = min(1.0, float(cost_UU.max() / step_U.abs().max())) if bool(step_U.isfinite().all()) else 0.0
    while length > _SHORTEST:
        tried_U = row_U + length * step_U
        tried_UU = _map(cost_UU, tried_U, regularization)
        if _row_error(tried_UU) < error:
            return tried_U, tried_UU
        length /= 2
    return row_U, map_UU


def _row_error(map_UU: Tensor) -> float:
    return float((map_UU.sum(dim=1) - 1.0).abs().max())


class Transport(ABC):
    """Where the other network's units go, symbol by symbol; at first each stays."""

    @abstractmethod
    def moved(self, part: Tensor, symbols: Sequence[str | None], family: Sequence[str]) -> Tensor:
        """A part in factors as `update` of a family wants it compared with the reference's."""

    @abstractmethod
    def update(self, symbol: Symbol, distances: Similarity) -> bool:
        """Moves one family the shortest way; whether anything changed.

        Args:
            symbol: of the family.
            distances: of the reference's units from those of `moved`.
        """

    @abstractmethod
    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The other network's state dict with all units moved; its own is not changed."""


class ExactTransport(Transport):
    """Without regularization: between as many units on both sides the optimum is a permutation.

    Args:
        specification: of both networks.
    """

    def __init__(self, specification: Specification) -> None:
        self.permutation = specification.identity()
        self._specification = specification

    def moved(self, part: Tensor, symbols: Sequence[str | None], family: Sequence[str]) -> Tensor:
        """In the present order, that of the family too: blocks and units within them are compared as they now lie."""
        return self._specification.ordered(part, symbols, self.permutation)

    def update(self, symbol: Symbol, distances: Similarity) -> bool:
        """One assignment, nested where units lie within blocks."""
        near = Similarity(
            outer_GG=-distances.outer_GG, within={name: -values for name, values in distances.within.items()}
        )
        before = self.permutation
        self.permutation = composed(before, best_orders(symbol, near), symbol)
        return any(not torch.equal(before[name], order) for name, order in self.permutation.items())

    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Permuted: the same function."""
        return self._specification.apply(state, self.permutation)


class SoftTransport(Transport):
    """With regularization: a unit of the result is a mean of all units, most of those that are near.

    Args:
        specification: of both networks; no units within blocks.
        regularization: > 0, in mean costs of the family that is moved.
    """

    def __init__(self, specification: Specification, regularization: float) -> None:
        self.maps = {
            name: torch.eye(symbol.size, dtype=torch.float64) for name, symbol in specification.symbols.items()
        }
        self._specification = specification
        self._regularization = regularization

    def moved(self, part: Tensor, symbols: Sequence[str | None], family: Sequence[str]) -> Tensor:
        """Along all axes but the family's: a mean has no way back."""
        return spread(part, [None if name in family else name for name in symbols], self.maps)

    def update(self, symbol: Symbol, distances: Similarity) -> bool:
        """One Sinkhorn iteration; units that are all alike stay."""
        cost_UU = distances.outer_GG
        mean = float(cost_UU.mean())
        if mean == 0.0:
            return False
        before, self.maps[symbol.name] = self.maps[symbol.name], sinkhorn(cost_UU / mean, self._regularization)
        return float((self.maps[symbol.name] - before).abs().max()) > _SAME

    def apply(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each part along all of its axes, in float64, rounded once."""
        found = dict(state)
        for view in self._specification.views:
            if view.key not in state:
                continue
            if found[view.key] is state[view.key]:
                found[view.key] = state[view.key].clone()
            window = found[view.key][view.window]
            window.copy_(spread(view.of(state[view.key]).double(), view.symbols, self.maps).reshape(window.shape))
        for alias, key in self._specification.aliases.items():
            if alias in state and key in state:
                found[alias] = found[key]
        return found


def spread(part: Tensor, symbols: Sequence[str | None], maps: Mapping[str, Tensor]) -> Tensor:
    """`y_i = sum_j T_ij x_j` along every axis that has a symbol: on a layer from A to B, `W = T_B W T_A^T`.

    Args:
        part: a tensor in factors, float64.
        symbols: of the factors.
        maps: symbol -> (U, U).

    Example:
        >>> swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> spread(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [None, "units"], {"units": swap})
        tensor([[2., 1.],
                [4., 3.]])
    """
    for dim, name in enumerate(symbols):
        if name is not None:
            part = torch.tensordot(maps[name], part, dims=([1], [dim])).movedim(0, dim)
    return part
