"""The module that trains one network on several tasks, their losses balanced by a weighting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from transfuse.randomness import derive_seed
from transfuse.training.module import TrainingModule
from transfuse.training.optimizer import group
from transfuse.training.settings import Training
from transfuse.types import Task


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """What a weighting may know of the training besides the losses of this batch.

    Attributes:
        step: optimizer steps done.
        epoch: finished epochs.
        tasks: their names, in order.
        epoch_means: for each finished epoch the mean training loss of each task, over all batches and ranks.
        generator: the weighting's random stream; equal on all ranks.
    """

    step: int
    epoch: int
    tasks: tuple[str, ...]
    epoch_means: Sequence[Sequence[float]]
    generator: torch.Generator


class Weighting(Protocol):
    """How T losses become the one scalar that is minimized."""

    def init(self, tasks: tuple[Task, ...]) -> nn.Module | None:
        """What is carried from step to step; its parameters are learned along with the network's."""

    def combine(self, losses_T: Tensor, state: nn.Module | None = None, step: StepInfo | None = None) -> Tensor:
        """The scalar, with a graph."""


@final
class MultiTaskModule(TrainingModule):
    """min over theta of `combine(L_1(theta), ..., L_T(theta))`.

    Under DDP `combine` sees the losses of its own rank: gradients are those of the joined batch where it is linear in
    the losses.

    Args:
        network: maps inputs to {task: (N, C)}; trained in place.
        tasks: in the order of the losses.
        settings: optimizer and schedule.
        weighting: the balancer.
        weighting_lr: peak learning rate of the weighting's own parameters; None takes `settings.lr`.
    """

    def __init__(
        self,
        network: nn.Module,
        tasks: tuple[Task, ...],
        settings: Training,
        weighting: Weighting,
        *,
        weighting_lr: float | None = None,
    ) -> None:
        super().__init__(network, tasks, settings)
        self.weighting = weighting
        self.weighting_state = weighting.init(tasks)
        self._weighting_lr = settings.lr if weighting_lr is None else weighting_lr
        self._names = tuple(task.name for task in tasks)
        self._generator = torch.Generator()

    def objective(self, losses: list[Tensor]) -> Tensor:
        """The weighting's scalar."""
        progress = self.progress
        step = StepInfo(
            step=progress.step,
            epoch=len(progress.history),
            tasks=self._names,
            epoch_means=progress.epoch_means,
            generator=self._generator,
        )
        return self.weighting.combine(torch.stack(losses), self.weighting_state, step)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's, and the weighting's without weight decay."""
        groups = [group(list(self.network.parameters()), weight_decay=self.settings.weight_decay)]
        own = [] if self.weighting_state is None else list(self.weighting_state.parameters())
        if own:
            groups.append(group(own, weight_decay=0.0, lr_factor=self._weighting_lr / self.settings.lr))
        return groups

    def on_train_start(self) -> None:
        """The weighting's stream goes on where it was."""
        super().on_train_start()
        if self.progress.generator is None:
            self._generator.manual_seed(derive_seed(self.budget.seed, "weighting"))
        else:
            self._generator.set_state(self.progress.generator)

    def on_train_end(self) -> None:
        """Keeps the weighting's stream."""
        super().on_train_end()
        self.progress.generator = self._generator.get_state()
