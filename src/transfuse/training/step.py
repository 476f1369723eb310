"""What a multi-task balancer may know of the training besides losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """Where the training is, and the stream that chance comes from.

    Attributes:
        names: of all tasks of the problem, in order.
        tasks: those that this step has labels for, in the order of the losses and of the rows of the Jacobian.
        step: optimizer steps done.
        epoch: finished epochs.
        losses_T: this step's losses, detached, float64 on the CPU; None where nobody knows them.
        epoch_means: for each finished epoch the mean training loss of each of `names`, over all batches and ranks.
        generator: the balancer's random stream; equal on all ranks.
        orders: row t holds the order in which the other tasks are visited for task t, instead of a random one.
        uniform_P: (P,) numbers in (0, 1), instead of random ones.
    """

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    step: int = 0
    epoch: int = 0
    losses_T: Tensor | None = None
    epoch_means: Sequence[Sequence[float]] = ()
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    orders: Sequence[Sequence[int]] | None = None
    uniform_P: Tensor | None = None

    @classmethod
    def anonymous(cls, tasks: int) -> StepInfo:
        """The first step of a training whose tasks are called `0`, `1`, ..."""
        names = tuple(map(str, range(tasks)))
        return cls(names=names, tasks=names)

    @property
    def positions(self) -> list[int]:
        """Of `tasks` within `names`."""
        return [self.names.index(task) for task in self.tasks]

    def means(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The mean losses of `tasks` in a finished epoch, (T,); negative numbers count from the last."""
        return np.asarray(self.epoch_means[epoch], dtype=np.float64)[self.positions]

    def restricted(self, kept: Sequence[int]) -> StepInfo:
        """The same for some of `tasks`, by their positions in it."""
        if len(kept) == len(self.tasks):
            return self
        new = {old: position for position, old in enumerate(kept)}
        return replace(
            self,
            tasks=tuple(self.tasks[at] for at in kept),
            losses_T=None if self.losses_T is None else self.losses_T[list(kept)],
            orders=None
            if self.orders is None
            else [[new[other] for other in self.orders[at] if other in new] for at in kept],
        )
