"""Structure transfer: take the source model's architecture (and maybe weights), f* = argmin_f L(f; D)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from transfuse.base_models.model import BaseModel, Description
from transfuse.models.network import head_names
from transfuse.strategy.base import Arm, Context, TrainedStrategy
from transfuse.strategy.parameter_transfer.base import ParameterTransfer, require_source, start_plan
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.types import Development, ProblemKind

if TYPE_CHECKING:
    from transfuse.training.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Grown:
    """A network derived from the source's structure, and what was done to derive it.

    Attributes:
        network: of the target's tasks.
        report: for the record.
        carries: whether its backbone's weights came from the source.
    """

    network: nn.Module
    report: Mapping[str, Any]
    carries: bool = True


@dataclass(frozen=True, kw_only=True)
class StructureTransfer(TrainedStrategy, ABC):
    """A way to derive the target network; the training of it is `then`'s choice.

    Attributes:
        source: which base model gives the structure: its position in the pool.
        then: how the derived network is trained: its phases. What it says of loading has no meaning here.
    """

    source: int = 0
    then: ParameterTransfer = field(default_factory=FullFinetune)

    family: ClassVar[str] = "structure_transfer"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    @abstractmethod
    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """The target network before it is trained; the source is not changed."""

    def check(self, development: Development, base_models: Description) -> None:
        """The source must be in the pool."""
        super().check(development, base_models)
        require_source(self, self.source, base_models)

    def plan(self, context: Context) -> Plan:
        """Derives the network; then what is trained of it when."""
        source = context.base_models[self.source]
        generator = context.generator("init")
        grown = self.grow(source, context.development, generator)
        carried = frozenset(name for name, _ in grown.network.named_parameters()) - head_names(grown.network)
        carried = carried if grown.carries else frozenset()
        return self.then.plan_of(grown.network, source, carried, grown.report, generator)

    def start(self, context: Context) -> Arm:
        """Derives the network, then lays out its training."""
        return start_plan(context, self, context.base_models[self.source], self.plan(context))
