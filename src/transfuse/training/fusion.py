"""The module that trains a small combiner of members' predictions."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from transfuse.training.module import TrainingModule
from transfuse.training.settings import Training
from transfuse.types import Task


@final
class FusionModule(TrainingModule):
    """min over a combiner's parameters of the task's loss of the fused logits.

    The examples' inputs are the members' stored logits, (N, M, C), so that members are never run.

    Args:
        combiner: maps (M, N, C) to (N, C); trained in place.
        task: whose logits they are.
        settings: optimizer and schedule.
    """

    def __init__(self, combiner: nn.Module, task: Task, settings: Training) -> None:
        super().__init__(combiner, (task,), settings)

    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """Fused logits of member logits (N, M, C)."""
        return {self.tasks[0].name: self.network(inputs.transpose(0, 1))}

    def objective(self, losses: list[Tensor]) -> Tensor:
        """The loss of the only task."""
        return losses[0]
