"""The module that trains several small networks of one architecture in one vectorized step.

Dimensions in tensor names: M members, N examples, C outputs of a task, T tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from transfuse.data.loaders import Batch, TrainingBatches
from transfuse.training.losses import task_loss
from transfuse.training.module import TrainingModule
from transfuse.training.settings import Training
from transfuse.training.stacked import Stacked, check_together
from transfuse.types import Task


@final
class TogetherModule(TrainingModule):
    """min over all theta_m of `sum_m sum_t loss_scale_t L_t(theta_m)`: each member as if it were trained alone.

    The sum, not the mean, leaves each member its own gradient; an element-wise optimizer over (M, ...) leaves then
    takes each member's own step. Batch order, gradient clipping and the best epoch are each member's own; dropout draws
    different units for each. Sums are added up in another order than alone, so weights agree and are not bit-equal.

    It saves the time that small networks spend between operations, not that of the operations: the larger network or
    batch, the less. `benchmarks/base_models.py` measures where it ends.

    Args:
        networks: the members, of one architecture, without BatchNorm statistics; copied.
        tasks: what they predict.
        settings: optimizer and schedule, without patience.
        seeds: of each member's batch order.

    Raises:
        HyperparameterError: networks or settings are not such.
    """

    network: Stacked

    def __init__(
        self, networks: Sequence[nn.Module], tasks: tuple[Task, ...], settings: Training, seeds: Sequence[int]
    ) -> None:
        check_together(networks, settings)
        super().__init__(Stacked(networks), tasks, settings)
        self.seeds = tuple(seeds)
        self.best_epochs = [0] * len(networks)
        self.best_losses = [math.inf] * len(networks)
        self._validation_M = torch.zeros(0)

    def train_dataloader(self) -> StackedBatches:  # type: ignore[override]
        """Each member's batches, in its own order."""
        start, device = self.progress.step, self.device
        budgets = [replace(self.budget, seed=seed) for seed in self.seeds]
        return StackedBatches(
            [self.memory.training(budget, start=start, rank=0, world=1, device=device) for budget in budgets]
        )

    def on_train_start(self) -> None:
        """Each member's best epoch so far."""
        super().on_train_start()
        if self.progress.members:
            self.best_epochs = list(self.progress.members["best_epochs"])
            self.best_losses = list(self.progress.members["best_losses"])

    def capture(self) -> None:
        """Keeps them too."""
        super().capture()
        self.progress.members = {"best_epochs": list(self.best_epochs), "best_losses": list(self.best_losses)}

    def losses(self, batch: Batch) -> list[Tensor]:
        """Each task's mean over members (of equally many examples) of their losses."""
        outputs = self.network(batch.inputs)
        return [
            task.loss_scale * task_loss(task, outputs[task.name].flatten(0, 1), batch.targets[task.name].flatten(0, 1))
            for task in self.tasks
        ]

    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """sum_m sum_t L_tm."""
        return self.network.num_members * torch.stack(losses).sum()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limits the norm of each member's own gradient."""
        if gradient_clip_val is not None:
            clip_members([each.grad for each in self.network.parameters() if each.grad is not None], gradient_clip_val)

    def on_validation_epoch_start(self) -> None:
        """Fresh sums of all members together, and of each."""
        super().on_validation_epoch_start()
        self._validation_M = torch.zeros(self.network.num_members, dtype=self._validation_T.dtype, device=self.device)

    def validation_losses(self, batch: Batch) -> list[Tensor]:
        """Each task's mean over members of their losses; notes each member's own."""
        outputs = self.network.on_shared(batch.inputs)
        losses_TM = torch.stack([self._member_losses(task, outputs[task.name], batch) for task in self.tasks])
        self._validation_M += losses_TM.sum(0) * len(batch.ids)
        return list(losses_TM.mean(1))

    def _member_losses(self, task: Task, outputs_MNC: Tensor, batch: Batch) -> Tensor:
        targets = batch.targets[task.name]
        return torch.stack([task.loss_scale * task_loss(task, outputs_NC, targets) for outputs_NC in outputs_MNC])

    def keep_weights(self, epoch: int, loss: float) -> None:
        """Each member's weights of its own best epoch, or the last ones of all."""
        progress, examples = self.progress, float(self._validation_T[-1])
        losses = [total / examples for total in self._validation_M.tolist()]
        state = {name: values.detach() for name, values in self.network.state_dict().items()}
        if not progress.best:
            progress.best = {name: values.clone() for name, values in state.items()}
        for index, own in enumerate(losses):
            if own < self.best_losses[index] or self.settings.keep == "last":
                self.best_epochs[index], self.best_losses[index] = epoch, own
                for name, values in state.items():
                    progress.best[name][index] = values[index]
        progress.best_epoch, progress.best_loss = max(self.best_epochs), math.fsum(self.best_losses) / len(losses)


class StackedBatches:
    """Batches of several orders of the same examples: inputs (M, N, ...), targets (M, N, ...), ids (N, M).

    Args:
        members: each member's own batches; equally many, of equal sizes.
    """

    def __init__(self, members: Sequence[TrainingBatches]) -> None:
        self._members = members

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self._members, strict=True):
            names = batches[0].targets
            yield Batch(
                torch.stack([batch.inputs for batch in batches]),
                {name: torch.stack([batch.targets[name] for batch in batches]) for name in names},
                torch.stack([batch.ids for batch in batches], dim=1),
            )


def clip_members(gradients: Sequence[Tensor], limit: float) -> None:
    """Scales each member's gradient, in place, to a norm of at most `limit`.

    Args:
        gradients: (M, ...) each; a member's gradient is its part of all of them.
        limit: > 0.

    Example:
        >>> gradients = [torch.tensor([[3.0, 4.0], [0.3, 0.4]])]
        >>> clip_members(gradients, 1.0)
        >>> gradients[0]
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    norms_M = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factors_M = (limit / (norms_M + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(factors_M.view(-1, *(1,) * (gradient.dim() - 1)))
