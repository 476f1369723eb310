"""`structure_transfer/net2wider`: more units, the same function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transfuse.base_models.model import BaseModel
from transfuse.models.widths import WidthGroup, width_groups
from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.operators import random_map, shares, widen
from transfuse.strategy.structure_transfer.resizing import (
    count,
    new_sizes,
    preservation_error,
    require_factor,
    resized,
    source_like,
    target_network,
)
from transfuse.types import Development, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Net2Wider(StructureTransfer):
    """Every width times `factor`: new units are copies of old ones, and who reads them takes shares of the old weight.

    The widened network computes what the source did, before heads are replaced. Unequal shares part the copies in
    training; equal ones never do.

    Attributes:
        factor: >= 1, of all widths; a transformer's only whole ones.
        widths: sizes by the model's own fields (`{channels: [32, 64]}`), in place of `factor`.
        split: `unequal`: shares in proportion to draws from U(0.5, 1.5); `equal`.
        noise: >= 0, deviation of what is added to copies, as a share of each tensor's own; then the function changes.

    Reference:
        Chen et al. 2016, "Net2Net", 1511.05641; Wang et al. 2023, "LEMON", 2310.07999.
    """

    factor: float = 2.0
    widths: Mapping[str, Sequence[int] | int] | None = None
    split: str = "unequal"
    noise: float = 0.0

    def __post_init__(self) -> None:
        require_factor("factor", self.factor, least=1.0, most=math.inf)
        if self.split not in ("unequal", "equal"):
            raise HyperparameterError(f"`split` should be unequal or equal. Found `split = {self.split}`.")
        if not 0 <= self.noise < math.inf:
            raise HyperparameterError(f"`noise` should be >= 0. Found `noise = {self.noise}`.")

    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """The widened network with fresh heads."""
        before = source.network()
        groups = width_groups(before)
        sizes = new_sizes(groups, self.factor, self.widths)
        state = {key: value.clone() for key, value in source.state.items()}
        maps: dict[str, Any] = {}
        for group in groups:
            wanted = sizes[group.name]
            if wanted < group.size:
                raise HyperparameterError(
                    f"`{group.name}` should not become narrower. Found {group.size} and {wanted}. "
                    "Did you mean strategy=structure_transfer/weight_selection?"
                )
            map_N = random_map(group.size, wanted, generator, whole=group.whole)
            split_N = shares(map_N, group.size, generator, equal=self.split == "equal")
            state = widen(state, [group], map_N, split_N)
            if self.noise:
                state |= _disturbed(state, group, self.noise, generator)
            maps[group.name] = map_N.tolist()
        architecture = resized(source.architecture, groups, sizes)
        after = source_like(architecture, state, target)
        error = preservation_error(before, after, target, exact=not self.noise)
        return Grown(
            network=target_network(architecture, state, target, generator),
            report={
                "widths": {group.name: [group.size, sizes[group.name]] for group in groups},
                "maps": maps,
                "parameters_before": count(before),
                "parameters_after": count(after),
                "preservation_error": error,
            },
        )


def _disturbed(
    state: Mapping[str, Tensor], group: WidthGroup, noise: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """What writes the new units, with noise; the first units are as they were."""
    changed = {}
    for slot in group.producers:
        value = state[slot.key].clone()
        start = group.size * slot.block
        copies = value.narrow(slot.dim, start, value.shape[slot.dim] - start)
        copies += noise * value.std() * torch.randn(copies.shape, generator=generator)
        changed[slot.key] = value
    return changed
