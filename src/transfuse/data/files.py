"""Files of public data sets: found or downloaded, and checked by SHA-256 before anything reads them."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from transfuse.types import DataError

_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Gzipped files that are public, and where they may lie.

    Attributes:
        title: of the data set, for people.
        stem: name of the folder that they get below the data folder.
        system: folder where the operating system's package puts them.
        url: folder that they are downloaded from; ends in a slash.
        install: command that installs the package.
        sha256: file name -> SHA-256 (hex) of the *decompressed* content, so that a file that was packed anew passes.
    """

    title: str
    stem: str
    system: Path
    url: str
    install: str
    sha256: Mapping[str, str]

    def read(self, name: str, folder: Path) -> bytes:
        """The decompressed content of file `name`: from the system, from `folder`, or downloaded into `folder`.

        Raises:
            DataError: nowhere to be found, or damaged.
        """
        own = folder / self.stem
        for path in (self.system / name, own / name):
            if path.is_file():
                remedy = f"Delete it and let it be downloaded again, or reinstall with `{self.install}`."
                return self._unpacked(path.read_bytes(), name, str(path), remedy)
        packed = self._download(name, own)
        content = self._unpacked(packed, name, self.url + name, f"Install the data with `{self.install}`.")
        _write(own / name, packed)
        return content

    def _unpacked(self, packed: bytes, name: str, where: str, remedy: str) -> bytes:
        try:
            content = gzip.decompress(packed)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{where} is not a whole gzip file: {error}. {remedy}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256[name]:
            raise DataError(
                f"{where} does not hold the {self.title} that is expected: its content has SHA-256 {found}, "
                f"it should have {self.sha256[name]}. {remedy}"
            )
        return content

    def _download(self, name: str, own: Path) -> bytes:
        try:
            with urllib.request.urlopen(self.url + name, timeout=_TIMEOUT) as answer:
                packed: bytes = answer.read()
        except (OSError, HTTPException) as error:
            names = ", ".join(self.sha256)
            raise DataError(
                f"{self.title} is neither in {self.system} nor in {own}, and {self.url}{name} cannot be downloaded "
                f"({error}). Install it with `{self.install}`, or put {names} into {own}."
            ) from error
        return packed


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: parallel jobs may download the same file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} was downloaded and cannot be written: {error}.") from error
