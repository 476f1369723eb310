"""Files of public data sets: found or downloaded, and checked by SHA-256 before anything reads them."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import tempfile
import urllib.request
import zipfile
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
        _check_content(content, self.sha256[name], self.title, where, remedy)
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


@dataclass(frozen=True, kw_only=True)
class PackagedFile:
    """A packed file that comes with a Python package, which is found and never imported.

    Attributes:
        title: of the data set, for people.
        stem: folder below the data folder where a copy may lie.
        package: that holds the file.
        path: of the file within the package; ends in `.gz`, in `.zip` with one member, or is not packed.
        install: command that installs the package.
        sha256: of the *unpacked* content, in hex.
    """

    title: str
    stem: str
    package: str
    path: str
    install: str
    sha256: str

    def read(self, folder: Path) -> bytes:
        """The unpacked content: from the installed package, or from `folder`.

        Raises:
            DataError: nowhere to be found, or damaged.
        """
        own = folder / self.stem / Path(self.path).name
        found = next((path for path in (self._installed(), own) if path is not None and path.is_file()), None)
        if found is None:
            raise DataError(
                f"{self.title} is found neither in the package {self.package}, nor as {own}. Install it with "
                f"`{self.install}`, or put {own.name} of that package there."
            )
        remedy = f"Install it again with `{self.install}`."
        try:
            content = _unpacked(found)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{found} is not a whole packed file: {error}. {remedy}") from error
        _check_content(content, self.sha256, self.title, str(found), remedy)
        return content

    def _installed(self) -> Path | None:
        spec = importlib.util.find_spec(self.package)
        places = () if spec is None else spec.submodule_search_locations or ()
        return next((Path(place) / self.path for place in places), None)


def _unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        return archive.read(archive.namelist()[0])


def _check_content(content: bytes, expected: str, title: str, where: str, remedy: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DataError(
            f"{where} does not hold the {title} that is expected: its content has SHA-256 {found}, "
            f"it should have {expected}. {remedy}"
        )


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
