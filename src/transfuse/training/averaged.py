"""The module that trains a network as `BaseModule` does, and averages its weights along the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from transfuse.data.loaders import Batch
from transfuse.training.averaging import Average, Snapshots, current_values, on_device
from transfuse.training.module import TrainingModule
from transfuse.training.settings import Training
from transfuse.types import Task


@final
class AveragedModule(TrainingModule):
    """min over theta of `sum_t loss_scale_t L_t(theta)`; `progress.average` sums up the snapshots of theta.

    The training does not see the average: batches, dropout, weights and losses are those without it. The average is
    part of the training's state: pausing changes nothing, and it comes back from worker processes.

    Args:
        network: trained in place.
        tasks: what it predicts.
        settings: optimizer and schedule.
        snapshots: the steps whose weights are taken in.
        average: how.
        keys: of the state dict's floating tensors that are averaged.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: tuple[Task, ...],
        settings: Training,
        *,
        snapshots: Snapshots,
        average: Average,
        keys: frozenset[str],
    ) -> None:
        super().__init__(network, tasks, settings)
        self.snapshots = snapshots
        self.average = average
        self.keys = keys

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """sum_t L_t."""
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total

    def on_train_start(self) -> None:
        """The average of earlier pieces goes to the device."""
        super().on_train_start()
        self.progress.average = on_device(self.progress.average, self.device)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Takes the step, then the snapshot; the first rank's average is the one that is kept."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.global_rank == 0 and self.snapshots.due(self.progress.step):
            self.average.update(self.progress.average, current_values(self.network, self.keys))
