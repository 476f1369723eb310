"""What worker processes of a training on several devices send back: the state that they reached, or why they failed.

Lightning starts the processes and brings the weights back; moments, history and errors come through a folder.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import transfuse.types
from transfuse.training.progress import Progress
from transfuse.training.quiet import hush
from transfuse.types import TransfuseError


class Exchange:
    """A folder shared by the processes of one launch.

    Args:
        folder: exists, and is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A spawned process does not inherit what was silenced; this is the first that it runs."""
        self.__dict__.update(state)
        hush()

    def enter_worker(self) -> None:
        """One thread a process, an end by SIGTERM at once, and Lightning's temporary files in this folder."""
        torch.set_num_threads(1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        tempfile.tempdir = str(self.folder)

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

    def failure(self, name: str, cause: BaseException) -> TransfuseError:
        """The error to raise in the main process: the earliest of all ranks, else what ended the processes."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("failure-*.json")]
        if not found:
            return TransfuseError(f"{name}: a worker process failed: {str(cause).strip()}")
        first = min(found, key=lambda failure: float(failure["time"]))
        kind = getattr(transfuse.types, first["kind"], None)
        if isinstance(kind, type) and issubclass(kind, TransfuseError):
            return kind(first["message"])
        error = TransfuseError(f"{name}: {first['kind']} in process {first['rank']}: {first['message']}")
        error.add_note(first["traceback"])
        return error
