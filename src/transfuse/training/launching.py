"""What is left to do around worker processes that Lightning launches."""

from __future__ import annotations

import os
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def exit_codes(trainer: Trainer) -> list[int | None]:
    """Of the ranks, as far as they were started."""
    from pytorch_lightning.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    launcher = trainer.strategy.launcher
    assert isinstance(launcher, _MultiProcessingLauncher), "several devices are launched by fork or spawn"
    return [process.exitcode for process in launcher.procs]


def end(workers: Iterable[BaseProcess]) -> None:
    """Kills workers and waits for them."""
    for process in workers:
        process.kill()
        process.join()


def restore_environment(environment: dict[str, str | None]) -> None:
    """Variables as they were; None: unset."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
