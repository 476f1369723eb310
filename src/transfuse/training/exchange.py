"""What worker processes of a training on several devices send back: the state that they reached, or why they failed.

Lightning starts the processes and brings the weights back; moments, history and errors come through a folder.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import transfuse.types
from transfuse.training.progress import Progress
from transfuse.training.quiet import hush
from transfuse.types import TrainingError, TransfuseError

_CONSEQUENCES = (signal.SIGTERM, signal.SIGABRT)  # from torch and from NCCL, to ranks that wait for one that failed


class Exchange:
    """A folder shared by the processes of one launch.

    Args:
        folder: exists, and is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._main = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A spawned process does not inherit what was silenced; this is the first that it runs."""
        self.__dict__.update(state)
        hush()

    def enter_worker(self) -> None:
        """One thread a process, an end at once by signals, and Lightning's temporary files in this folder."""
        torch.set_num_threads(1)
        self.obey_signals()
        tempfile.tempdir = str(self.folder)
        if os.getppid() != self._main:  # killed before torch asked the system to end us with it
            sys.exit(1)

    def obey_signals(self) -> None:
        """Lets signals end this process at once, even while it waits for other ranks.

        SIGTERM comes from torch when another rank has failed, SIGINT from the terminal, or from the system when the
        main process has died.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def write_progress(self, progress: Progress) -> None:
        """From rank 0, when its piece of the training is done."""
        torch.save({each.name: getattr(progress, each.name) for each in fields(progress)}, self.folder / "progress.pt")

    def read_progress(self) -> Progress:
        """In the main process."""
        return Progress(**torch.load(self.folder / "progress.pt", map_location="cpu", weights_only=True))

    def write_failure(self, rank: int, error: BaseException) -> None:
        """From the rank in which `error` was raised; its first one counts."""
        path = self.folder / f"failure-{rank}.json"
        if not path.exists():
            content = {
                "rank": rank,
                "time": time.monotonic(),
                "kind": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
            path.write_text(json.dumps(content))

    def failure(self, name: str, cause: BaseException, exit_codes: Sequence[int | None]) -> TransfuseError:
        """The error to raise in the main process.

        Args:
            name: of the training.
            cause: what the launch raised.
            exit_codes: of the ranks; negative for one that a signal ended.

        Returns:
            A rank that a signal ended; else the earliest error that a rank wrote; else what the launch says. The other
            ranks fail after that, because they lose their connection.
        """
        for rank, code in enumerate(exit_codes):
            if code is not None and code < 0 and -code not in _CONSEQUENCES:
                remedy = " Was there too little memory?" if -code == signal.SIGKILL else ""
                return TrainingError(f"{name}: process {rank} was ended by {signal.Signals(-code).name}.{remedy}")
        written = [json.loads(path.read_text()) for path in self.folder.glob("failure-*.json")]
        if not written:
            return _told(f"{name}: a process failed: {_last_error(str(cause))}", str(cause))
        first = min(written, key=lambda failure: float(failure["time"]))
        kind = getattr(transfuse.types, first["kind"], None)
        if isinstance(kind, type) and issubclass(kind, TransfuseError):
            return kind(first["message"])
        message = f"{name}: {first['kind']} in process {first['rank']}: {first['message']}"
        return _told(message, first["traceback"])


@contextmanager
def open_exchange(parent: Path | None) -> Iterator[Exchange]:
    """An exchange in a new folder below `parent`; until the end, torch puts its temporary files there too."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="transfuse-fit-", dir=parent) as folder:
        tempfile.tempdir = folder
        try:
            yield Exchange(Path(folder))
        finally:
            tempfile.tempdir = before


def _told(message: str, details: str) -> TrainingError:
    error = TrainingError(message)
    error.add_note(details)
    return error


def _last_error(text: str) -> str:
    r"""What a traceback ends in; a text without one as it is.

    Example:
        >>> _last_error("Traceback (most recent call last):\n  File ...\n    code\nValueError: first\nsecond\n")
        'ValueError: first\nsecond'
    """
    last = text.rpartition("Traceback (most recent call last):\n")[2]
    return re.sub(r"\A(?: .*\n)+", "", last).strip()
