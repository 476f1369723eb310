"""The store of base models: one folder a key, written whole or not at all, verified when read.

<store>/<key>/model.safetensors
<store>/<key>/record.json                                          recipe, validation scores, checksum
<store>/<key>/predictions/<data fingerprint>/<split>.safetensors   logits of every task, ids
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transfuse.types import StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stored base model: its weights and its record (`recipe`, `validation`, `seconds`, `created`, ...)."""

    state: Mapping[str, Tensor]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Store:
    """Trained networks and their predictions under content keys, shared by parallel jobs.

    Attributes:
        folder: absolute; made on first write.
    """

    folder: Path

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Holds the key: another job that needs the same model waits here. Freed by the system if we are killed."""
        try:
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "locks" / f"{key}.lock")
            lock.acquire()
        except OSError as error:
            raise StoreError(f"The store {self.folder} cannot be written: {error}.") from error
        try:
            yield
        finally:
            lock.release()

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None. A damaged entry is set aside with a message and counts as absent."""
        folder = self.folder / key
        if not folder.exists():
            return None
        try:
            record = json.loads((folder / "record.json").read_text())
            if record["sha256"] != _sha256(folder / "model.safetensors"):
                raise ValueError("model.safetensors does not have the recorded checksum")
            return Entry(state=load_file(folder / "model.safetensors"), record=record)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            self._set_aside(key, error)
            return None

    def put(self, key: str, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> Entry:
        """Stores a base model; an entry of the same key is replaced."""
        with self._writing(key) as folder:
            save_file(_detached(state), folder / "model.safetensors")
            content = dict(record, sha256=_sha256(folder / "model.safetensors"), created=time.time())
            (folder / "record.json").write_text(json.dumps(content, indent=2))
        return Entry(state=_detached(state), record=content)

    def get_predictions(self, key: str, fingerprint: str, split: str, ids: Tensor) -> dict[str, Tensor] | None:
        """Task -> (N, C) logits on a split, or None when they are absent, damaged or of other examples."""
        path = self._predictions(key, fingerprint, split)
        if not path.exists():
            return None
        try:
            content = load_file(path)
        except (OSError, SafetensorError) as error:
            log.warning("The predictions %s are damaged (%s); they are computed again.", path, error)
            return None
        if not torch.equal(content.pop("ids"), ids):
            log.warning("The predictions %s are of other examples; they are computed again.", path)
            return None
        return content

    def put_predictions(
        self, key: str, fingerprint: str, split: str, logits: Mapping[str, Tensor], ids: Tensor
    ) -> None:
        """Stores a member's logits on a split."""
        path = self._predictions(key, fingerprint, split)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{split}-")
            os.close(handle)
            save_file(_detached(logits) | {"ids": ids.contiguous()}, temporary)
            Path(temporary).replace(path)
        except OSError as error:
            raise StoreError(f"The store {self.folder} cannot be written: {error}.") from error

    def _predictions(self, key: str, fingerprint: str, split: str) -> Path:
        return self.folder / key / "predictions" / fingerprint / f"{split}.safetensors"

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """A temporary folder that becomes the entry when the block ends well, and vanishes otherwise."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".writing-"))
        except OSError as error:
            raise StoreError(f"The store {self.folder} cannot be written: {error}.") from error
        try:
            yield temporary
            if (self.folder / key).exists():
                shutil.rmtree(self.folder / key)
            temporary.replace(self.folder / key)
        except OSError as error:
            raise StoreError(f"The store {self.folder} cannot be written: {error}. Is the disk full?") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _set_aside(self, key: str, reason: Exception) -> None:
        target = self.folder / "damaged" / f"{key}-{time.time_ns()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / key).replace(target)
        log.warning("The stored base model %s is damaged (%s). It is set aside as %s.", key, reason, target)


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that own their storage, as safetensors wants them (tied tensors too)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
