"""The store of base models: one folder a key, written whole or not at all, verified when read.

    <store>/<key>/model.safetensors
    <store>/<key>/record.json                                          recipe, validation scores, checksum
    <store>/<key>/predictions/<data fingerprint>/<split>.safetensors   logits of every task, ids
    <store>/<key>/statistics/<data fingerprint>/<purpose>.safetensors  what was measured on data, such as a Fisher

Reading needs no lock; whoever writes an entry, or judges one as damaged, holds its key's lock, or that of the training
which it comes from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from transfuse.types import StoreError

log = logging.getLogger(__name__)

_NEEDED = ("sha256", "created", "validation", "seconds")
_IDS, _LOGITS = "ids", "logits/"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stored base model: its weights and its record (`recipe`, `validation`, `seconds`, `created`, `sha256`)."""

    state: Mapping[str, Tensor]
    record: Mapping[str, Any]


class _DamagedError(Exception):
    """An entry is there but is not what was written."""


@dataclass(frozen=True)
class Store:
    """Trained networks, their predictions and statistics under content keys, shared by parallel jobs.

    Attributes:
        folder: absolute; made on first write.
    """

    folder: Path

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Holds the key: another job that needs the same model waits here. Freed by the system if we are killed."""
        with self._told():
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "locks" / f"{key}.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def get(self, key: str) -> Entry | None:
        """The entry of `key`; None when there is none, or none that can be read just now."""
        try:
            return self._read(key)
        except _DamagedError:
            return None

    def get_or_set_aside(self, key: str) -> Entry | None:
        """The same under the key's lock: an entry that is damaged then is moved away, with a message."""
        try:
            return self._read(key)
        except _DamagedError as damage:
            target = self.folder / "damaged" / f"{key}-{time.time_ns()}"
            with self._told():
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / key).replace(target)
            log.warning("The stored base model %s is damaged (%s). It is set aside as %s.", key, damage, target)
            return None

    def put(self, key: str, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> Entry:
        """Stores a base model under the key's lock; an entry of the same key, and what lies beside it, is replaced."""
        return self.put_all({key: Entry(state=state, record=record)})[key]

    def put_all(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """Stores base models of one training: none takes its place before all are written."""
        written = {}
        with ExitStack() as writing:
            for key, entry in entries.items():
                written[key] = _write_entry(writing.enter_context(self._writing(key)), entry)
        return written

    def weights_file(self, key: str) -> Path:
        """Where the weights of an entry lie."""
        return self.folder / key / "model.safetensors"

    def get_predictions(
        self, key: str, fingerprint: str, split: str, *, weights: str, ids: Tensor
    ) -> dict[str, Tensor] | None:
        """Task -> (N, C) logits on a split; None when they are absent, damaged, of other weights or other examples.

        Args:
            key: of the base model.
            fingerprint: of the data.
            split: its name.
            weights: the entry's `sha256`: predictions of weights that were replaced do not count.
            ids: of the examples, in order.
        """
        path = self._predictions(key, fingerprint, split)
        content = _verified(path, weights)
        if content is not None and torch.equal(content[_IDS], ids):
            return {name.removeprefix(_LOGITS): value for name, value in content.items() if name != _IDS}
        if path.exists():
            log.warning("The predictions %s are damaged or out of date; they are computed again.", path)
        return None

    def put_predictions(
        self, key: str, fingerprint: str, split: str, logits: Mapping[str, Tensor], *, weights: str, ids: Tensor
    ) -> None:
        """Stores a member's logits on a split; arguments as of `get_predictions`."""
        path = self._predictions(key, fingerprint, split)
        content = _detached({f"{_LOGITS}{name}": value for name, value in logits.items()} | {_IDS: ids})
        self._put_beside(path, content, weights)

    def get_statistics(self, key: str, fingerprint: str, purpose: str, *, weights: str) -> dict[str, Tensor] | None:
        """What was measured for a purpose, by name; None when it is absent, damaged or of other weights.

        Args:
            key: of the base model.
            fingerprint: of the data.
            purpose: what was measured and how, in any words; its SHA-256 names the file.
            weights: the entry's `sha256`.
        """
        path = self._statistics(key, fingerprint, purpose)
        content = _verified(path, weights)
        if content is None and path.exists():
            log.warning("The statistics %s are damaged or out of date; they are measured again.", path)
        return content

    def put_statistics(
        self, key: str, fingerprint: str, purpose: str, statistics: Mapping[str, Tensor], *, weights: str
    ) -> None:
        """Stores what was measured; arguments as of `get_statistics`."""
        self._put_beside(self._statistics(key, fingerprint, purpose), _detached(statistics), weights)

    def _put_beside(self, path: Path, content: dict[str, Tensor], weights: str) -> None:
        with self._told():
            try:
                _write(path, content, {"weights": weights, "digest": _digest(content)})
            except (FileNotFoundError, FileExistsError, SafetensorError) as error:
                # the entry was replaced meanwhile: its folder came or went, and what is written here is out of date
                if isinstance(error, SafetensorError) and "No such file" not in str(error):
                    raise

    def _predictions(self, key: str, fingerprint: str, split: str) -> Path:
        return self.folder / key / "predictions" / fingerprint / f"{split}.safetensors"

    def _statistics(self, key: str, fingerprint: str, purpose: str) -> Path:
        name = hashlib.sha256(purpose.encode()).hexdigest()
        return self.folder / key / "statistics" / fingerprint / f"{name}.safetensors"

    def _read(self, key: str) -> Entry | None:
        folder = self.folder / key
        if not (folder / "record.json").exists() and not (folder / "model.safetensors").exists():
            return None
        try:
            record = json.loads((folder / "record.json").read_text())
            weights = (folder / "model.safetensors").read_bytes()
            if not isinstance(record, dict) or any(name not in record for name in _NEEDED):
                raise _DamagedError("record.json is not whole")
            if record["sha256"] != hashlib.sha256(weights).hexdigest():
                raise _DamagedError("model.safetensors does not have the recorded checksum")
            return Entry(state=load(weights), record=record)
        except (OSError, ValueError, SafetensorError) as error:
            raise _DamagedError(str(error)) from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """A temporary folder that becomes the entry when the block ends well, and vanishes otherwise."""
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".writing-"))
            try:
                yield temporary
                self._exchange(temporary, self.folder / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _exchange(self, new: Path, entry: Path) -> None:
        """Puts `new` in the entry's place. Predictions that are written meanwhile make the place anew: try again."""
        for attempt in range(100):
            old = Path(f"{new}-old-{attempt}")
            try:
                if entry.exists():
                    entry.replace(old)
                new.replace(entry)
                return
            except OSError:
                if attempt == 99:
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the file system as `StoreError`."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise StoreError(f"The store {self.folder} cannot be written: {error}. Is the disk full?") from error


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that own their storage, as safetensors wants them (tied tensors too)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _write_entry(folder: Path, entry: Entry) -> Entry:
    """Weights and record in a folder; returns the entry as it can be read there."""
    own = _detached(entry.state)
    save_file(own, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    content = dict(entry.record, sha256=digest, created=time.time())
    (folder / "record.json").write_text(json.dumps(content, indent=2))
    return Entry(state=own, record=content)


def _write(path: Path, content: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    os.close(handle)
    try:
        save_file(content, temporary, metadata)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _verified(path: Path, weights: str) -> dict[str, Tensor] | None:
    """The tensors of a file that was written for these weights and is what was written; None otherwise."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    known = metadata.get("weights") == weights and metadata.get("digest") == _digest(content)
    return content if known else None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
