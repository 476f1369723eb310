"""`baseline/single_task`: one independent network a task, the reference of multi-task learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from transfuse.base_models.model import Description
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.baseline.base import Baseline
from transfuse.types import Development, IncompatibleStrategyError, ProblemKind


class Independent(nn.Module):
    """Several networks as one: the union of their outputs, (N, ...) to {task: (N, C)}."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Every network on the same inputs."""
        outputs: dict[str, Tensor] = {}
        for network in self.networks:
            outputs |= network(inputs)
        return outputs


@dataclass(frozen=True, kw_only=True)
class SingleTask(Baseline):
    """The per-task base models, side by side. Together they have T times the parameters of a shared network."""

    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})

    def check(self, development: Development, base_models: Description) -> None:
        """The pool must hold exactly one network a task."""
        super().check(development, base_models)
        wanted = [(task.name,) for task in development.tasks]
        if [member.tasks for member in base_models.members] != wanted:
            raise IncompatibleStrategyError(
                f"{self.name} needs one base model a task. Found base_models={base_models.recipe}. "
                f"Did you mean base_models=per_task?"
            )

    def apply(self, context: Context) -> FusedModel:
        """Puts the members side by side."""
        members = list(context.base_models)
        return FusedModel(
            network=Independent([member.network() for member in members]).eval(),
            validation={task: scores for member in members for task, scores in member.validation.items()},
            members=tuple(range(len(members))),
        )
