"""Widening and narrowing of state dicts.

Dimensions in tensor names: N units after, n units before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfuse.models.widths import Slot, WidthGroup
from transfuse.types import HyperparameterError


def widen(
    state: Mapping[str, Tensor], groups: Sequence[WidthGroup], map_N: Tensor, split_N: Tensor
) -> dict[str, Tensor]:
    """A state dict with N units in place of n that computes the same function.

    Writers take row `m_j` for unit j, and so do scales, shifts and statistics; readers take column `m_j` times `a_j`.

    Args:
        state: keys -> tensors; not changed.
        groups: that share the map.
        map_N: m, the source unit of each new unit.
        split_N: a, shares that sum to 1 over the copies of each source unit.

    Returns:
        A new state dict with all keys.

    Raises:
        HyperparameterError: a unit is not kept, or its shares do not sum to 1.

    Reference:
        Chen et al. 2016, "Net2Net: accelerating learning via knowledge transfer", 1511.05641.
    """
    for group in groups:
        totals = torch.zeros(group.size, dtype=torch.float64).index_add(0, map_N, split_N.double())
        if not torch.allclose(totals, torch.ones_like(totals), atol=1e-6):
            raise HyperparameterError(
                f"The shares of each of the {group.size} units of `{group.name}` should sum to 1. Found sums from "
                f"{float(totals.min()):.3g} to {float(totals.max()):.3g}."
            )
    changed = dict(state)
    for group in groups:
        for slot in (*group.producers, *group.normalizers):
            changed[slot.key] = _taken(changed[slot.key], slot, map_N)
        for slot in group.consumers:
            value = _taken(changed[slot.key], slot, map_N)
            shape = [1] * value.dim()
            shape[slot.dim] = -1
            changed[slot.key] = value * split_N.repeat_interleave(slot.block).to(value).reshape(shape)
    return {key: value.clone() for key, value in changed.items()}


def shrink(state: Mapping[str, Tensor], groups: Sequence[WidthGroup], map_N: Tensor) -> dict[str, Tensor]:
    """The inverse of `widen` with the same map: the first copy of each unit; readers sum over copies.

    Args:
        state: a widened state dict; not changed.
        groups: of the network before it was widened.
        map_N: m.
    """
    first_n = torch.stack([(map_N == unit).nonzero()[0, 0] for unit in range(groups[0].size)])
    changed = dict(state)
    for group in groups:
        for slot in (*group.producers, *group.normalizers):
            changed[slot.key] = _taken(changed[slot.key], slot, first_n)
        for slot in group.consumers:
            value = changed[slot.key]
            shape = list(value.shape)
            shape[slot.dim] = group.size * slot.block
            target = _elements(map_N, slot.block)
            changed[slot.key] = value.new_zeros(shape).index_add(slot.dim, target, value)
    return {key: value.clone() for key, value in changed.items()}


def select(state: Mapping[str, Tensor], group: WidthGroup, index_N: Tensor) -> dict[str, Tensor]:
    """The state dict with the units at `index_N` alone; what readers had from others is lost."""
    changed = dict(state)
    for slot in (*group.producers, *group.normalizers, *group.consumers):
        changed[slot.key] = _taken(changed[slot.key], slot, index_N)
    return {key: value.clone() for key, value in changed.items()}


def select_indices(n_from: int, n_to: int) -> Tensor:
    """Evenly spaced positions: every n_from / n_to where that is whole, else a rounded linspace.

    Example:
        >>> select_indices(9, 4)
        tensor([0, 3, 5, 8])

    Reference:
        Xu et al. 2024, "Initializing models with larger ones", 2311.18823.
    """
    if not 1 <= n_to <= n_from:
        raise HyperparameterError(f"`n_to` should be in [1, {n_from}]. Found `n_to = {n_to}`.")
    if n_from % n_to == 0:
        return torch.arange(n_to) * (n_from // n_to)
    return torch.linspace(0, n_from - 1, n_to, dtype=torch.float64).round().long()


def random_map(size: int, wanted: int, generator: torch.Generator, *, whole: bool) -> Tensor:
    """The identity on the first units, then random ones; with `whole` every unit equally often, in order."""
    if whole:
        return torch.arange(size).repeat(wanted // size)
    return torch.cat([torch.arange(size), torch.randint(size, (wanted - size,), generator=generator)])


def shares(map_N: Tensor, size: int, generator: torch.Generator, *, equal: bool) -> Tensor:
    """a_j that sum to 1 over copies: 1 / count, or in proportion to draws from U(0.5, 1.5), which parts the copies."""
    raw_N = torch.ones(len(map_N), dtype=torch.float64)
    if not equal:
        raw_N = 0.5 + torch.rand(len(map_N), generator=generator, dtype=torch.float64)
    totals = torch.zeros(size, dtype=torch.float64).index_add(0, map_N, raw_N)
    return raw_N / totals[map_N]


def _taken(value: Tensor, slot: Slot, map_N: Tensor) -> Tensor:
    return value.index_select(slot.dim, _elements(map_N, slot.block).to(value.device))


def _elements(map_N: Tensor, block: int) -> Tensor:
    """Positions of the units' elements."""
    return (map_N[:, None] * block + torch.arange(block)).reshape(-1)
