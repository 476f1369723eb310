"""Checkpoints on disk: a training that was killed goes on from its last one when it is asked for again.

    <folder>/<key>-<stop>.ckpt    weights, progress, tasks and seconds as torch saves them; then their SHA-256

`key` is a hash of all that decides the training, `stop` the optimizer step that the training was asked to reach: one
that pauses, to take its weights or to be judged, has a file for each of its pieces, so that each ends as it did before.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from transfuse.training.progress import Progress
from transfuse.types import StateMismatchError

if TYPE_CHECKING:
    from transfuse.training.module import TrainingModule

log = logging.getLogger(__name__)

_DIGEST = 32  # bytes of SHA-256


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        weights: the module's state dict: the network, and what a balancer learns.
        progress: all else that a later piece needs.
        seconds: wall clock of the training so far.
    """

    weights: Mapping[str, Tensor]
    progress: Progress
    seconds: float


@dataclass(kw_only=True)
class Checkpoint:
    """The checkpoints of one training.

    Attributes:
        folder: made on first write.
        key: of the training.
        every: seconds between two of them; writing that takes longer than a second lengthens it in proportion.
        stop: the optimizer step that training is on its way to.
        seconds: wall clock of the training before the current piece.
    """

    folder: Path
    key: str
    every: float
    stop: int = 0
    seconds: float = 0.0
    _step: int = field(default=0, init=False)  # of the last one
    _told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._wait = self.every

    @property
    def path(self) -> Path:
        """Of the piece that ends at `stop`."""
        return self.folder / f"{self.key}-{self.stop}.ckpt"

    def begin_piece(self, seconds: float) -> None:
        """Starts the clock of a piece, after `seconds` of training."""
        self.seconds, self._began = seconds, time.perf_counter()

    def end_piece(self) -> None:
        """Learns when worker processes wrote the last one: they have copies of this object."""
        with suppress(OSError):
            self._last = max(self._last, time.perf_counter() - (time.time() - self.path.stat().st_mtime))

    def offer(self, module: TrainingModule) -> None:
        """Writes the state that the module is in, where that is due; the same call on every rank."""
        step = module.progress.step
        if step == self._step or not module.trainer.strategy.broadcast(time.perf_counter() - self._last >= self._wait):
            return
        module.capture()
        self._step = step
        if module.global_rank == 0:
            self._write(module)

    def read(self, tasks: Iterable[str], weights: Mapping[str, Tensor]) -> Saved | None:
        """The last one of the piece; None when there is none, or none that can be read.

        Args:
            tasks: names of the module's.
            weights: the module's state dict.

        Raises:
            StateMismatchError: it was written for other tasks.
        """
        try:
            content = _content(self.path)
            saved = Saved(
                weights=content["weights"], progress=Progress(**content["progress"]), seconds=content["seconds"]
            )
            saved_for, found = list(content["tasks"]), list(tasks)
            if saved_for == found and _shapes(saved.weights) != _shapes(weights):
                raise ValueError("its weights are those of another network")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("The checkpoint %s cannot be used (%s). The training starts anew.", self.path, _short(error))
            return None
        if saved_for != found:
            raise StateMismatchError(
                f"The checkpoint {self.path} was saved for the tasks {', '.join(saved_for)}. "
                f"Found the tasks {', '.join(found)}."
            )
        self._step = saved.progress.step
        return saved

    def _write(self, module: TrainingModule) -> None:
        progress, began = module.progress, time.perf_counter()
        content = {
            "tasks": [task.name for task in module.tasks],
            "weights": module.state_dict(),
            "progress": {each.name: getattr(progress, each.name) for each in fields(progress)},
            "seconds": self.seconds + began - self._began,
        }
        try:
            _replace(self.path, content)
        except (OSError, RuntimeError) as error:  # torch tells a full disk by either
            if not self._told:
                log.warning(
                    "The checkpoint %s cannot be written (%s). Is the disk full? The training goes on without it.",
                    *(self.path, _short(error)),
                )
            self._told = True
        self._last = time.perf_counter()
        self._wait = self.every * max(1.0, self._last - began)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of all trainings of a run.

    Attributes:
        folder: of the files; None for none.
        every: seconds between two of a training; None for none.
    """

    folder: Path | None = None
    every: float | None = None
    _keys: set[str] = field(default_factory=set, init=False)

    def of(self, key: str | None) -> Checkpoint | None:
        """Those of the training `key`; None where there are to be none."""
        if self.folder is None or self.every is None or key is None:
            return None
        self._keys.add(key)
        return Checkpoint(folder=self.folder, key=key, every=self.every)

    def remove(self, key: str) -> None:
        """Deletes those of a training whose result is kept elsewhere by now."""
        if key not in self._keys or self.folder is None:
            return
        self._keys.remove(key)
        with suppress(OSError):  # one that stays behind does no harm
            for path in self.folder.glob(f"{key}-*"):
                path.unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Deletes those of every training that was asked for here."""
        for key in sorted(self._keys):
            self.remove(key)


def _replace(path: Path, content: dict[str, Any]) -> None:
    """A checkpoint, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-")
    try:
        with os.fdopen(handle, "w+b") as file:
            torch.save(content, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(digest)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _content(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError("it does not have its checksum")
    content = torch.load(io.BytesIO(data[:-_DIGEST]), map_location="cpu", weights_only=True)
    assert isinstance(content, dict), "as written"
    return content


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in weights.items()}


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
