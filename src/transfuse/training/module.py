"""What the four Lightning modules share: losses, budget, learning rate, validation, the best weights.

Losses are added up on the device and read once an epoch; the learning rate is set per step by formula: the work that a
step does beyond forward, backward and optimizer is a few microseconds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from transfuse.data.loaders import Batch, EvaluationBatches, TrainingBatches
from transfuse.randomness import derive_seed, seed_streams
from transfuse.training.checkpoints import Checkpoint
from transfuse.training.exchange import Exchange
from transfuse.training.labels import label_counts, partially_labelled
from transfuse.training.losses import task_losses
from transfuse.training.memory import Memory
from transfuse.training.optimizer import group, lr_at, make_optimizer, restore, set_lr, supports_fused
from transfuse.training.progress import Budget, Progress, Row, gathered, streams
from transfuse.training.settings import Training
from transfuse.types import NonFiniteError, Split, Task

_FINITE_EVERY = 200  # steps between looks at the training loss within an epoch


class TrainingModule(LightningModule, ABC):
    """A network, its tasks, and how it is trained.

    `Fit` sets `budget`, `memory`, `checkpoint` where there are to be some, `exchange` where worker processes train.

    Args:
        network: maps inputs to {task: (N, C)}; trained in place.
        tasks: what it predicts.
        settings: optimizer and schedule.
    """

    budget: Budget
    memory: Memory

    def __init__(self, network: nn.Module, tasks: tuple[Task, ...], settings: Training) -> None:
        super().__init__()
        self.network = network
        self.tasks = tasks
        self.settings = settings
        self.progress = Progress()
        self.exchange: Exchange | None = None
        self.checkpoint: Checkpoint | None = None
        self.partial: tuple[bool, ...] = (False,) * len(tasks)
        self._sums_T = torch.zeros(0)
        self._validation_T = torch.zeros(0)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook here, 40 times a step; Module's own way takes a tenth of a small step
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @abstractmethod
    def objective(self, losses: list[Tensor], batch: Batch) -> Tensor:
        """The scalar that a step minimizes, from the tasks' losses of a batch (already times `loss_scale`)."""

    @property
    def trains(self) -> bool:
        """Whether any step is taken."""
        return True

    def begin(self, train: Split, validation: Split) -> None:
        """Work on the data before the first step, once, in the process that calls `Fitting.advance`."""

    def outputs(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task -> (N, C)."""
        return self.network(inputs)  # type: ignore[no-any-return]

    def losses(self, batch: Batch) -> list[Tensor]:
        """Each task's loss of a batch, times its `loss_scale`."""
        return self.losses_of(self.outputs(batch.inputs), batch)

    def losses_of(self, outputs: dict[str, Tensor], batch: Batch) -> list[Tensor]:
        """The same from the network's outputs."""
        return task_losses(self.network, self.tasks, outputs, batch.targets)

    def validation_losses(self, batch: Batch) -> list[Tensor]:
        """The same of a validation batch."""
        return self.losses(batch)

    def keep_weights(self, epoch: int, loss: float) -> None:
        """At an epoch's end: notes the weights where `settings.keep` asks for them.

        Args:
            epoch: that ends, counted from 1.
            loss: of validation.
        """
        progress = self.progress
        if loss < progress.best_loss or self.settings.keep == "last":
            state = self.network.state_dict()
            progress.best = {key: value.detach().clone() for key, value in state.items()}
            progress.best_epoch, progress.best_loss = epoch, loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups that together hold all parameters."""
        return [group(list(self.parameters()), weight_decay=self.settings.weight_decay)]

    def boundaries(self) -> tuple[int, ...]:
        """Steps at which what is trained changes; training is cut there, since DDP fixes it for each launch."""
        return ()

    def apply_modes(self) -> None:
        """Puts layers that do not follow `train()` into their mode."""

    def prepare_validation(self) -> None:
        """Work on the training data that comes before each validation."""

    def epoch_row(self) -> Row:
        """What else is noted of an epoch that ends."""
        return {}

    def add_losses(self, batch: Batch, losses: list[Tensor]) -> None:
        """Adds a training batch to the epoch's sums."""
        self._add(self._sums_T, batch, losses)

    # Lightning's hooks, in the order of a fit

    def setup(self, stage: str) -> None:
        """Each process takes its own random streams; only the first goes on with sums of a paused epoch."""
        progress, rank = self.progress, self.global_rank
        if self.exchange is not None:
            self.exchange.enter_worker()
        if rank < len(progress.streams):
            torch.set_rng_state(progress.streams[rank])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(progress.device_streams[rank], self.device)
        elif self.exchange is not None:
            seed_streams(derive_seed(self.budget.seed, "stream", rank), self.device)
        self.partial = partially_labelled(self.tasks, self.memory.train, self.memory.validation)
        self.train()

    def configure_optimizers(self) -> Optimizer:
        """One optimizer over all groups, with the moments from before the pause."""
        groups = self.parameter_groups()
        # Lightning refuses to clip under mixed precision when the optimizer is fused
        clips_scaled = self.settings.gradient_clip is not None and "mixed" in str(self.trainer.precision)
        fused = not clips_scaled and supports_fused([each for one in groups for each in one["params"]])
        optimizer = make_optimizer(self.settings, groups, fused=fused)
        if self.progress.optimizer:
            restore(optimizer, self.progress.optimizer)
        return optimizer

    def train_dataloader(self) -> TrainingBatches:
        """This rank's batches up to the next pause."""
        rank, world = self.global_rank, self.trainer.world_size
        return self.memory.training(self.budget, start=self.progress.step, rank=rank, world=world, device=self.device)

    def val_dataloader(self) -> EvaluationBatches:
        """This rank's validation batches."""
        return self.memory.evaluation(rank=self.global_rank, world=self.trainer.world_size, device=self.device)

    def on_train_start(self) -> None:
        """Sums go to the device; Lightning has set signal handlers of its own since `setup`."""
        if self.exchange is not None:
            self.exchange.obey_signals()
        start = self.progress.sums_T
        self._sums_T = self._zeros() if start is None or self.global_rank > 0 else start.to(self.device)
        self._one = torch.ones((), device=self.device)
        self._last_group = self.budget.epoch_batches % self.settings.accumulate
        self._batch = self.budget.batches(self.progress.step) % self.budget.epoch_batches

    def on_train_epoch_start(self) -> None:
        """`train()` of whoever called it is taken back for frozen layers."""
        self.apply_modes()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Nothing: batches are on the device already."""
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Loss of one batch."""
        try:
            losses = self.losses(batch)
            self.add_losses(batch, losses)
            loss = self.objective(losses, batch)
        except Exception as error:
            self._tell(error)
            raise
        if self.settings.accumulate > 1:
            loss = loss * self._last_group_factor()
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Sets the learning rate of this step, then takes it."""
        try:
            self.step_with(partial(optimizer.step, closure=optimizer_closure), optimizer)
        except Exception as error:
            self._tell(error)
            raise

    def step_with(self, take: Callable[[], Any], optimizer: Optimizer | LightningOptimizer) -> None:
        """Sets the learning rate of this step, takes it, and counts it."""
        progress = self.progress
        set_lr(optimizer, lr_at(self.settings, progress.step, self.budget.total_steps))  # type: ignore[arg-type]
        take()
        progress.step += 1
        if progress.step % _FINITE_EVERY == 0:
            self._check_finite("training", float(self._sums_T.sum()))

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """As the optimizer's own, without its profiling."""
        for each in optimizer.param_groups:
            for parameter in each["params"]:
                parameter.grad = None

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning's, where there is something to clip."""
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_validation_epoch_start(self) -> None:
        """Fresh sums; statistics that belong to the weights as they are now."""
        self.prepare_validation()
        self._validation_T = self._zeros()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds up one batch; a rank's last batch may be empty."""
        if len(batch.ids) == 0:
            return
        try:
            self._add(self._validation_T, batch, self.validation_losses(batch))
        except Exception as error:
            self._tell(error)
            raise

    def on_validation_epoch_end(self) -> None:
        """Scores at a pause; at an epoch's end also the history row, the best weights, patience."""
        validation = self._row("validation", self._means(self._validation_T))
        self.progress.scores = validation
        if self.budget.ends_epoch(self.progress.step):
            self._end_epoch(validation)

    def on_validation_end(self) -> None:
        """Lightning has put all layers back to training; an epoch or a piece has ended, which may be kept on disk."""
        self.apply_modes()
        if self.checkpoint is not None:
            self.checkpoint.offer(self)

    def on_train_end(self) -> None:
        """Takes along what a later piece of this training needs."""
        self.capture()
        if self.exchange is not None and self.global_rank == 0:
            self.exchange.write_progress(self.progress)

    def capture(self) -> None:
        """Puts all that a later piece needs, besides the weights, into `progress`; the same call on every rank."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        progress = self.progress
        progress.optimizer = optimizer.state_dict()
        progress.sums_T = self._reduced(self._sums_T)
        stream, device_stream = streams(self.device)
        progress.streams = gathered(stream, self.device, self.trainer.world_size)
        progress.device_streams = gathered(device_stream, self.device, self.trainer.world_size)

    def _zeros(self) -> Tensor:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.zeros(2 * len(self.tasks), dtype=dtype, device=self.device)

    def _add(self, sums_T: Tensor, batch: Batch, losses: list[Tensor]) -> None:
        """Adds each loss times its labelled examples, and their numbers as second half, in one operation."""
        if any(self.partial):
            counts_T = torch.tensor(label_counts(self.tasks, batch, self.partial), device=sums_T.device)
            sums_T.add_(torch.cat([torch.stack(losses).detach() * counts_T, counts_T]))
        else:
            sums_T.add_(torch.stack(losses + [self._one] * len(losses)).detach(), alpha=batch.ids.shape[0])

    def _means(self, sums_T: Tensor) -> list[float]:
        """Of each task; 0 for one without labels."""
        totals = self._reduced(sums_T).tolist()
        tasks = len(self.tasks)
        return [total / count if count else 0.0 for total, count in zip(totals[:tasks], totals[tasks:], strict=True)]

    def _reduced(self, sums_T: Tensor) -> Tensor:
        reduced = self.trainer.strategy.reduce(sums_T.clone(), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        return reduced

    def _last_group_factor(self) -> float:
        """Lightning divides by `accumulate`; the last group of an epoch may be smaller."""
        batch = self._batch
        self._batch = (batch + 1) % self.budget.epoch_batches
        in_last_group = batch >= self.budget.epoch_batches - self._last_group
        return self.settings.accumulate / self._last_group if in_last_group else 1.0

    def _end_epoch(self, validation: Row) -> None:
        progress = self.progress
        means_T = self._means(self._sums_T)
        train = self._row("train", means_T)
        self._check_finite("training", train["train/loss"])
        self._check_finite("validation", validation["validation/loss"])
        epoch = len(progress.history) + 1
        lr = lr_at(self.settings, progress.step - 1, self.budget.total_steps)
        row = {"epoch": epoch, "step": progress.step, **train, **validation, "lr": lr, **self.epoch_row()}
        progress.history.append(row)
        progress.epoch_means.append(means_T)
        self._sums_T.zero_()
        self.keep_weights(epoch, validation["validation/loss"])
        patience = self.settings.patience
        if patience is not None and epoch - progress.lowest_epoch >= patience:
            progress.stopped = self.trainer.should_stop = True

    def _row(self, split: str, means_T: list[float]) -> Row:
        row = {f"{split}/loss": math.fsum(means_T) if all(map(math.isfinite, means_T)) else math.nan}
        if len(self.tasks) > 1:
            row |= {f"{split}/{task.name}/loss": mean for task, mean in zip(self.tasks, means_T, strict=True)}
        return row

    def _check_finite(self, kind: str, loss: float) -> None:
        if math.isfinite(loss):
            return
        error = NonFiniteError(
            f"{self.budget.name}: the {kind} loss is {loss} in epoch {len(self.progress.history) + 1} "
            f"(step {self.progress.step}). Try a smaller training.lr or training.gradient_clip."
        )
        self._tell(error)
        raise error

    def _tell(self, error: BaseException) -> None:
        if self.exchange is not None:
            self.exchange.write_failure(self.global_rank, error)
