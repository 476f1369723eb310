"""The batches of one piece of a training, on every rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transfuse.data.loaders import EvaluationBatches, TrainingBatches
from transfuse.randomness import derive_seed
from transfuse.training.progress import Budget
from transfuse.types import Split

_EVALUATION_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The examples of a training, and how far its next piece goes.

    Attributes:
        train: examples to fit on.
        validation: examples to select on.
        batch_size: of training, over all devices.
        stop: the optimizer step to pause or end at.
    """

    train: Split
    validation: Split
    batch_size: int
    stop: int

    def training(self, budget: Budget, *, start: int, rank: int, world: int, device: torch.device) -> TrainingBatches:
        """This rank's shuffled batches from optimizer step `start` on."""
        return TrainingBatches(
            self.train,
            batch_size=self.batch_size,
            seed=derive_seed(budget.seed, "order"),
            rank=rank,
            world=world,
            start=budget.batches(start),
            stop=budget.batches(self.stop),
            device=device,
        )

    def evaluation(self, *, rank: int, world: int, device: torch.device) -> EvaluationBatches:
        """This rank's validation batches."""
        size = max(_EVALUATION_BATCH, self.batch_size)
        return EvaluationBatches(self.validation, batch_size=size, rank=rank, world=world, device=device)
