"""The module that trains a small combiner of members' predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor, nn

from transfuse.data.loaders import Batch
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
        penalty: of the combiner's parameters, added to the loss of every step; not to the losses that are reported.
        betas: of Adam and AdamW. Full batches have no noise to average over: short memories follow a gradient that
            shrinks.
    """

    def __init__(
        self,
        combiner: nn.Module,
        task: Task,
        settings: Training,
        penalty: Callable[[], Tensor] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        super().__init__(combiner, (task,), settings)
        self._penalty = penalty
        self._betas = betas

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All parameters, with the betas."""
        return [each | {"betas": self._betas} for each in super().parameter_groups()]

    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """Fused logits of member logits (N, M, C)."""
        return {self.tasks[0].name: self.network(inputs.transpose(0, 1))}

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """The loss of the only task, and the penalty."""
        return losses[0] if self._penalty is None else losses[0] + self._penalty()
