"""`parameter_transfer/lora`: train a low-rank update of the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from transfuse.base_models.model import BaseModel
from transfuse.models.network import head_names
from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of, train_only
from transfuse.strategy.parameter_transfer.ranges import require_positive
from transfuse.types import HyperparameterError, UnsupportedStructureError

if TYPE_CHECKING:
    from transfuse.training.plan import Finish, Phase, Plan


@dataclass(frozen=True, kw_only=True)
class Lora(ParameterTransfer):
    """`W + s B A` with W frozen: A drawn, B zero at the start; merged into W at the end. The head is trained.

    On linear layers and ungrouped convolutions. BatchNorm keeps the source's statistics.

    Attributes:
        rank: R >= 1, of A and B.
        alpha: > 0; None: 2 rank.
        scaling: `standard`: s = alpha / rank; `rank_stabilized`: s = alpha / sqrt(rank).
        dora: magnitude and direction of each unit's weights are trained apart.
        detach_norm: with `dora`, no gradient flows through the norm.
        targets: regular expression that the names of adapted layers match; None: all but heads.
        lr_factor: learning rate relative to `training.lr`, > 0.

    Reference:
        Hu et al. 2021, "LoRA", 2106.09685; Kalajdzievski 2023, 2312.03732; Liu et al. 2024, "DoRA", 2402.09353.
    """

    rank: int = 4
    alpha: float | None = None
    scaling: str = "standard"
    dora: bool = False
    detach_norm: bool = False
    targets: str | None = None
    lr_factor: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise HyperparameterError(f"`rank` should be at least 1. Found `rank = {self.rank}`.")
        if self.alpha is not None:
            require_positive("alpha", self.alpha)
        require_positive("lr_factor", self.lr_factor)
        if self.scaling not in ("standard", "rank_stabilized"):
            raise HyperparameterError(
                f"`scaling` should be standard or rank_stabilized. Found `scaling = {self.scaling}`."
            )
        if self.targets is not None:
            try:
                re.compile(self.targets)
            except re.error as error:
                raise HyperparameterError(
                    f"`targets` should be a regular expression. Found `targets = {self.targets}`: {error}."
                ) from error

    @property
    def factor(self) -> float:
        """S."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (self.rank if self.scaling == "standard" else self.rank**0.5)

    def plan_of(
        self,
        network: nn.Module,
        source: BaseModel,
        carried: frozenset[str],
        report: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Plan:
        """The plan of the network with its weights parametrized."""
        from transfuse.training.low_rank import LowRank, adaptable

        layers = adaptable(network, self.targets, head_names(network))
        if not layers:
            raise UnsupportedStructureError(
                f"{self.name} adapts linear layers and ungrouped convolutions outside of the heads. Found none"
                f"{'' if self.targets is None else f' that match targets={self.targets}'}."
            )
        for layer in layers.values():
            update = LowRank(
                layer.weight,
                rank=self.rank,
                scaling=self.factor,
                dora=self.dora,
                detach_norm=self.detach_norm,
                generator=generator,
            )
            parametrize.register_parametrization(layer, "weight", update)
        return super().plan_of(network, source, carried, {**report, "adapted_layers": list(layers)}, generator)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase: the updates and the head."""
        groups_of(network, self.name)
        updates = {name for name, _ in network.named_parameters() if name.rpartition(".")[2] in ("a", "b", "magnitude")}
        return (train_only(network, "updates", updates, lr_factor=self.lr_factor),)

    def finish(self) -> tuple[Finish, ...]:
        """Merged."""
        from transfuse.training.low_rank import MergeLowRank

        return (MergeLowRank(),)
