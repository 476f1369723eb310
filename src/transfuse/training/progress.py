"""How far a training is: all that is needed to go on from a pause, besides weights and moments."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transfuse.data.loaders import examples_per_epoch
from transfuse.training.settings import Training

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The layout of a training, fixed before its first step.

    Attributes:
        name: of the training, for messages.
        seed: of order and dropout.
        total_steps: optimizer steps of the whole budget.
        epoch_batches: batches of an epoch.
        accumulate: batches of an optimizer step; the last step of an epoch may have fewer.
    """

    name: str
    seed: int
    total_steps: int
    epoch_batches: int
    accumulate: int

    @classmethod
    def of(cls, settings: Training, *, examples: int, world: int, name: str = "", seed: int = 0) -> Budget:
        """The layout of a training on `examples` training examples by `world` processes."""
        epoch_batches = math.ceil(examples_per_epoch(examples, settings.batch_size, world) / settings.batch_size)
        epoch_steps = math.ceil(epoch_batches / settings.accumulate)
        total_steps = settings.steps if settings.epochs is None else settings.epochs * epoch_steps
        assert total_steps is not None, "exactly one of epochs and steps is set"
        return cls(
            name=name,
            seed=seed,
            total_steps=total_steps,
            epoch_batches=epoch_batches,
            accumulate=settings.accumulate,
        )

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(self.epoch_batches / self.accumulate)

    def batches(self, step: int) -> int:
        """Batches that `step` optimizer steps use."""
        epoch, rest = divmod(step, self.epoch_steps)
        return epoch * self.epoch_batches + rest * self.accumulate

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch, or the budget, ends after `step` steps."""
        return step == self.total_steps or step % self.epoch_steps == 0


@dataclass(kw_only=True)
class Progress:
    """The state of a training that is neither weight nor moment.

    Attributes:
        step: optimizer steps done.
        history: one row a finished epoch.
        scores: of the last validation, at an epoch's end or at a pause.
        best: the best weights so far by validation loss; empty before the first epoch's end.
        best_epoch: counted from 1; 0 before the first epoch's end.
        best_loss: validation loss of `best`.
        stopped: whether patience has ended the training.
        sums_T: sum over examples of each task's training loss in the current epoch, and their number as last entry.
        epoch_means: for each finished epoch the mean training loss of each task.
        generator: state of the generator that a balancer draws from.
        balancer: state of a balancer, where it carries one besides learned parameters.
        streams: per rank, state of torch's global CPU stream (dropout).
        device_streams: the same of the CUDA stream; empty on CPU.
        optimizer: its state dict.
        members: each member's best epoch and loss, where several train together.
        average: of snapshots of the weights along the training, where they are averaged; see `averaging`.
    """

    step: int = 0
    history: list[Row] = field(default_factory=list)
    scores: Row = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = math.inf
    stopped: bool = False
    sums_T: Tensor | None = None
    epoch_means: list[list[float]] = field(default_factory=list)
    generator: Tensor | None = None
    balancer: dict[str, Any] = field(default_factory=dict)
    streams: list[Tensor] = field(default_factory=list)
    device_streams: list[Tensor] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)

    @property
    def lowest_epoch(self) -> int:
        """The first epoch with the lowest validation loss, counted from 1."""
        losses = [row["validation/loss"] for row in self.history]
        return losses.index(min(losses)) + 1


def streams(device: torch.device) -> tuple[Tensor, Tensor]:
    """This process's CPU and CUDA streams as they are now; the second is empty on a CPU."""
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)
    return torch.get_rng_state(), on_device


def gathered(values: Tensor, device: torch.device, world: int) -> list[Tensor]:
    """`values` of every rank, on the CPU; the same call on every rank."""
    if world == 1:
        return [values]
    own = values.to(device)
    everywhere = [torch.empty_like(own) for _ in range(world)]
    torch.distributed.all_gather(everywhere, own)
    return [each.cpu() for each in everywhere]
