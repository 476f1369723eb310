"""The data of a training as Lightning asks for them."""

from __future__ import annotations

from typing import final

import torch
from pytorch_lightning import LightningDataModule

from transfuse.data.loaders import Batch, EvaluationBatches, TrainingBatches
from transfuse.randomness import derive_seed
from transfuse.training.progress import Budget
from transfuse.types import Split

_EVALUATION_BATCH = 512


@final
class InMemory(LightningDataModule):
    """Batches of one piece of a training, from `start` to `stop` in optimizer steps.

    Args:
        train: examples to fit on.
        validation: examples to select on.
        budget: the layout of the whole training.
        batch_size: of training, over all devices.
        start: steps done.
        stop: the step to pause or end at.
    """

    def __init__(
        self, train: Split, validation: Split, *, budget: Budget, batch_size: int, start: int, stop: int
    ) -> None:
        super().__init__()
        self._train = train
        self._validation = validation
        self._budget = budget
        self._batch_size = batch_size
        self._start = start
        self._stop = stop

    def train_dataloader(self) -> TrainingBatches:
        """This rank's shuffled batches."""
        assert self.trainer is not None
        return TrainingBatches(
            self._train,
            batch_size=self._batch_size,
            seed=derive_seed(self._budget.seed, "order"),
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            start=self._budget.batches(self._start),
            stop=self._budget.batches(self._stop),
            device=self.trainer.strategy.root_device,
        )

    def val_dataloader(self) -> EvaluationBatches:
        """This rank's validation batches."""
        assert self.trainer is not None
        return EvaluationBatches(
            self._validation,
            batch_size=max(_EVALUATION_BATCH, self._batch_size),
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            device=self.trainer.strategy.root_device,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Nothing: loaders give batches on the device."""
        return batch
