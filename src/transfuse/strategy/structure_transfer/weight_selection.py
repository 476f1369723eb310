"""`structure_transfer/weight_selection`: a narrower network from the units of a wider one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.base_models.model import BaseModel
from transfuse.models.widths import WidthGroup, width_groups
from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.operators import select, select_indices
from transfuse.strategy.structure_transfer.resizing import (
    count,
    new_sizes,
    require_factor,
    resized,
    target_network,
)
from transfuse.types import Development, HyperparameterError, UnsupportedStructureError

RULES = ("uniform", "first", "random", "l1", "batch_norm")


@dataclass(frozen=True, kw_only=True)
class WeightSelection(StructureTransfer):
    """Keeps some units of every width: one choice for all who write and read them. Heads are fresh.

    Attributes:
        factor: in (0, 1], of all widths.
        widths: sizes by the model's own fields, in place of `factor`.
        rule: `uniform` (evenly spaced), `first`, `random`, `l1` (largest absolute sum of what writes the unit), or
            `batch_norm` (largest |gamma|).

    Reference:
        Xu et al. 2024, "Initializing models with larger ones", 2311.18823.
    """

    factor: float = 0.5
    widths: Mapping[str, Sequence[int] | int] | None = None
    rule: str = "uniform"

    def __post_init__(self) -> None:
        require_factor("factor", self.factor, least=0.0, most=1.0)
        if self.rule not in RULES:
            raise HyperparameterError(f"`rule` should be one of {', '.join(RULES)}. Found `rule = {self.rule}`.")

    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """The narrower network with fresh heads."""
        before = source.network()
        groups = width_groups(before)
        if any(group.whole for group in groups) and (self.factor != 1 or self.widths is not None):
            raise UnsupportedStructureError(
                "The stream of a transformer under LayerNorm cannot be narrowed by leaving units out. "
                "Did you mean model=mlp, cnn or resnet?"
            )
        sizes = new_sizes(groups, self.factor, self.widths)
        state = {key: value.clone() for key, value in source.state.items()}
        kept = {}
        for group in groups:
            wanted = sizes[group.name]
            if wanted > group.size:
                raise HyperparameterError(
                    f"`{group.name}` should not become wider. Found {group.size} and {wanted}. "
                    "Did you mean strategy=structure_transfer/net2wider?"
                )
            index_N = self._chosen(group, wanted, source.state, generator)
            state = select(state, group, index_N)
            kept[group.name] = index_N.tolist()
        architecture = resized(source.architecture, groups, sizes)
        network = target_network(architecture, state, target, generator)
        report = {
            "widths": {group.name: [group.size, sizes[group.name]] for group in groups},
            "kept": kept,
            "parameters_before": count(before),
            "parameters_after": count(network),
        }
        return Grown(network=network, report=report)

    def _chosen(
        self, group: WidthGroup, wanted: int, state: Mapping[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """(N,) the units that are kept, ascending."""
        if self.rule == "uniform":
            return select_indices(group.size, wanted)
        if self.rule == "first":
            return torch.arange(wanted)
        if self.rule == "random":
            return torch.randperm(group.size, generator=generator)[:wanted].sort().values
        if self.rule == "l1":
            keys = [slot for slot in group.producers if state[slot.key].dim() > 1]
        else:
            keys = [slot for slot in group.normalizers if slot.key.endswith("weight")]
            if not keys:
                raise UnsupportedStructureError(
                    f"`{group.name}` has no BatchNorm. Did you mean rule=l1, or model.batch_norm=true?"
                )
        sums = [
            state[slot.key].abs().movedim(slot.dim, 0).reshape(group.size, -1).sum(1, dtype=torch.float64)
            for slot in keys
        ]
        largest = torch.stack(sums).sum(0).argsort(descending=True, stable=True)
        return largest[:wanted].sort().values
