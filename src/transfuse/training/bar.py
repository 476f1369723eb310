"""One short progress bar a training, moved once an epoch."""

from __future__ import annotations

from typing import final

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from transfuse.training.module import TrainingModule


@final
class Bar(Callback):
    """Name, steps, epoch and validation loss, on the terminal; removed when the training ends.

    The bar is made when training starts: it cannot be sent to a spawned process.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._line = TaskID(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the bar, in the first process only."""
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        budget = pl_module.budget
        done = pl_module.progress.step
        self._line = self._bar.add_task(budget.name, total=budget.total_steps, completed=done, note="")
        self._bar.start()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Moves it."""
        assert isinstance(pl_module, TrainingModule)
        if self._bar is not None:
            progress = pl_module.progress
            loss = progress.scores["validation/loss"]
            note = f", epoch {len(progress.history)}, validation loss {loss:.4g}"
            self._bar.update(self._line, completed=progress.step, note=note, refresh=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes it."""
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the terminal back; in the main process too, where the bar was a killed process's."""
        if self._bar is not None:
            self._bar.stop()
        Console(stderr=True).show_cursor()
