"""The only place that builds a Lightning Trainer. Lightning is imported when something is trained, and not before."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from transfuse.randomness import global_stream, make_generator
from transfuse.training.checkpoints import Checkpoints
from transfuse.training.exchange import open_exchange
from transfuse.training.interrupt import interruptible
from transfuse.training.launching import end, exit_codes, restore_environment
from transfuse.training.memory import Memory
from transfuse.training.progress import Budget, Row
from transfuse.training.quiet import quiet
from transfuse.training.settings import Devices, Training
from transfuse.types import HyperparameterError, NonFiniteError, Scores, Split

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from transfuse.training.module import TrainingModule

log = logging.getLogger(__name__)

_STRATEGIES = ("auto", "ddp_spawn", "ddp_fork")
_LAUNCH_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A finished (or abandoned) training.

    Attributes:
        network: on the CPU, in evaluation mode, with the weights that `settings.keep` chose; owns its weights.
        history: one row a finished epoch: `epoch, step, train/loss, validation/loss, lr`, and
            `<split>/<task>/loss` with several tasks.
        seconds: wall clock of training and validation.
        steps: optimizer steps taken.
        epochs: finished epochs.
        best_epoch: whose weights these are, counted from 1; 0 for weights of a pause before the first epoch's end.
        validation_loss: of these weights.
    """

    network: nn.Module
    history: tuple[Row, ...]
    seconds: float
    steps: int
    epochs: int
    best_epoch: int
    validation_loss: float


class Fit:
    """Trains a module with the run's devices: `fit(module, train, validation, settings=..., seed=..., name=...)`.

    Args:
        devices: the `trainer` group.
        folder: where worker processes exchange state; None for the system's temporary folder.
        checkpoints: folder of the checkpoints of trainings that have a key; None for none.
    """

    def __init__(self, devices: Devices, folder: Path | None = None, checkpoints: Path | None = None) -> None:
        if devices.strategy not in _STRATEGIES:
            raise HyperparameterError(
                f"`trainer.strategy` should be one of {', '.join(_STRATEGIES)}. "
                f"Found `trainer.strategy = {devices.strategy}`."
            )
        self.devices = _resolved(devices)
        self.folder = folder
        self.checkpoints = Checkpoints(folder=checkpoints, every=devices.checkpoint_every)

    @property
    def world_size(self) -> int:
        """Number of processes that a training runs in."""
        return int(self.devices.devices)

    def __call__(
        self,
        module: TrainingModule,
        train: Split,
        validation: Split,
        *,
        settings: Training,
        seed: int,
        name: str,
    ) -> FitResult:
        """Trains to the end of the budget.

        Args:
            module: its network is trained in place.
            train: examples to fit on.
            validation: examples to select on.
            settings: the budget; the module's own settings must be equal.
            seed: of example order and dropout.
            name: of the training, for messages.

        Raises:
            NonFiniteError: a training or validation loss is NaN or infinite.
            TrainingError: with several processes, one of them failed or was killed.
        """
        fitting = self.begin(module, train, validation, settings=settings, seed=seed, name=name)
        fitting.advance(fitting.total_steps)
        return fitting.result()

    def begin(
        self,
        module: TrainingModule,
        train: Split,
        validation: Split,
        *,
        settings: Training,
        seed: int,
        name: str,
        key: str | None = None,
    ) -> Fitting:
        """Lays out a training that is advanced piece by piece; trains nothing yet. Arguments as of a call.

        With a `key`, which names all that decides the training, one that was killed goes on from its last checkpoint.
        """
        if module.settings != settings:
            raise HyperparameterError(f"{name}: `settings` should be those of the module. Found different ones.")
        module.budget = Budget.of(settings, examples=len(train), world=self.world_size, name=name, seed=seed)
        return Fitting(self, module, train, validation, key)

    def trainer(self, module: TrainingModule, *, steps: int) -> Trainer:
        """A Trainer for one piece of a training: no logger, no checkpoint, nothing that costs time per batch."""
        from pytorch_lightning import Trainer

        from transfuse.training.bar import Bar
        from transfuse.training.unprofiled import Unprofiled

        settings, devices = module.settings, self.devices
        shows = devices.progress and sys.stderr.isatty()
        return Trainer(
            accelerator=devices.accelerator,
            devices=devices.devices,
            strategy=devices.strategy,
            precision=devices.precision,  # type: ignore[arg-type]
            max_epochs=-1,
            max_steps=steps,
            # in manual optimization the module does both
            gradient_clip_val=settings.gradient_clip if module.automatic_optimization else None,
            accumulate_grad_batches=settings.accumulate if module.automatic_optimization else 1,
            sync_batchnorm=self.world_size > 1 and devices.strategy == "ddp_spawn" and devices.accelerator != "cpu",
            callbacks=[Bar()] if shows else [],
            profiler=Unprofiled(),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )


class Fitting:
    """A training that can be paused at any optimizer step and resumed: the weights are those of an unbroken one.

    Made by `Fit.begin`.
    """

    def __init__(
        self, fit: Fit, module: TrainingModule, train: Split, validation: Split, key: str | None = None
    ) -> None:
        self._fit = fit
        self._module = module
        self._train = train
        self._validation = validation
        self._seconds = 0.0
        self._begun = False
        module.checkpoint = fit.checkpoints.of(key)

    @property
    def total_steps(self) -> int:
        """The whole budget in optimizer steps; 0 where none is taken."""
        return self._module.budget.total_steps if self._module.trains else 0

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._module.progress.step

    def advance(self, to_step: int) -> Scores:
        """Trains until optimizer step `to_step` of the whole budget, unless patience ends it earlier.

        Returns:
            `validation/loss` there, and `validation/<task>/loss` with several tasks; no entry before the first step.
        """
        to_step = min(to_step, self.total_steps)
        if not self._begun:
            self._begin()
        if to_step > self.step:
            self._go_on(to_step)
        for stop in sorted({*self._module.boundaries(), to_step}):
            if self.step < stop <= to_step and not self._module.progress.stopped:
                self._run(stop)
        return dict(self._module.progress.scores)

    def result(self) -> FitResult:
        """The best weights so far, in a network of their own; the training can go on afterwards."""
        module, progress = self._module, self._module.progress
        state, loss = progress.best, progress.best_loss
        if not state:
            if "validation/loss" not in progress.scores:
                raise NonFiniteError(f"{module.budget.name}: no validation loss was measured: nothing was trained yet.")
            state, loss = module.network.state_dict(), progress.scores["validation/loss"]
        network = self.snapshot()
        network.load_state_dict(state)
        return FitResult(
            network=network,
            history=tuple(dict(row) for row in progress.history),
            seconds=self._seconds,
            steps=progress.step,
            epochs=len(progress.history),
            best_epoch=progress.best_epoch,
            validation_loss=loss,
        )

    def snapshot(self) -> nn.Module:
        """The network as it is at this step: on the CPU, in evaluation mode, with weights of its own."""
        network = copy.deepcopy(self._module.network).cpu()
        network.requires_grad_(True)
        for parameter in network.parameters():
            parameter.grad = None
        return network.eval()

    def _begin(self) -> None:
        """Work before the first step; a training that goes on does it again, and its checkpoint has the last word."""
        started = time.perf_counter()
        with cpu_threads(self._fit.devices.threads):
            self._module.begin(self._train, self._validation)
        self._seconds += time.perf_counter() - started
        self._begun = True

    def _go_on(self, to_step: int) -> None:
        """Takes over the last checkpoint on the way to `to_step` of a training that was killed."""
        module, checkpoint = self._module, self._module.checkpoint
        if checkpoint is None:
            return
        checkpoint.stop = to_step
        saved = checkpoint.read([task.name for task in module.tasks], module.state_dict())
        if saved is not None and self.step < saved.progress.step <= to_step:
            module.load_state_dict(saved.weights)
            module.progress, self._seconds = saved.progress, saved.seconds
            log.info("%s goes on from the checkpoint of step %d.", module.budget.name, self.step)

    def _run(self, stop: int) -> None:
        module = self._module
        if module.checkpoint is not None:
            module.checkpoint.begin_piece(self._seconds)
        module.memory = Memory(
            train=self._train, validation=self._validation, batch_size=module.settings.batch_size, stop=stop
        )
        with quiet(), interruptible(), cpu_threads(self._fit.devices.threads):
            trainer = self._fit.trainer(module, steps=stop - self.step)
            started = time.perf_counter()
            launches = self._fit.world_size > 1
            device = None if launches else trainer.strategy.root_device
            with global_stream(make_generator(module.budget.seed, "stream"), device):
                if launches:
                    self._launch(trainer)
                else:
                    trainer.fit(module)
        self._seconds += time.perf_counter() - started
        if launches and module.checkpoint is not None:
            module.checkpoint.end_piece()

    def _launch(self, trainer: Trainer) -> None:
        """Trains in worker processes; takes over what they reached, or raises what went wrong there."""
        module = self._module
        environment = {name: os.environ.get(name) for name in _LAUNCH_VARIABLES}
        others = set(multiprocessing.active_children())
        with open_exchange(self._fit.folder) as exchange:
            module.exchange = exchange
            try:
                trainer.fit(module)
                module.progress = exchange.read_progress()
            except Exception as error:
                raise exchange.failure(module.budget.name, error, exit_codes(trainer)) from error
            finally:
                module.exchange = None
                end(set(multiprocessing.active_children()) - others)
                restore_environment(environment)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Lets torch use `count` threads until the end of the block; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resolved(devices: Devices) -> Devices:
    """Counts decided here: Lightning's own choice for several devices would start the whole program again."""
    on_gpu = devices.accelerator != "cpu" and torch.cuda.is_available()
    if devices.accelerator in ("gpu", "cuda") and not on_gpu:
        raise HyperparameterError(
            f"`trainer.accelerator = {devices.accelerator}` needs a GPU that torch can use. Found none. "
            f"Did you mean trainer=cpu?"
        )
    if devices.devices == "auto":
        count = torch.cuda.device_count() if on_gpu and devices.strategy != "auto" else 1
    else:
        count = int(devices.devices)
    if count < 1:
        raise HyperparameterError(f"`trainer.devices` should be auto or >= 1. Found `trainer.devices = {count}`.")
    strategy = devices.strategy
    if count == 1:
        strategy = "auto"
    elif strategy == "auto":
        strategy = "ddp_spawn" if on_gpu else "ddp_fork"
    return replace(devices, devices=count, strategy=strategy)
