from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from transfuse.data.files import Archive
from transfuse.types import DataError

CONTENT = b"some bytes that are the data"
PACKED = gzip.compress(CONTENT, mtime=0)  # the same bytes in every process: they name tests
NAME = "data-idx1-ubyte.gz"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Nothing in the system, and one file that can be downloaded from a folder."""
    remote = tmp_path / "remote"
    remote.mkdir()
    (remote / NAME).write_bytes(PACKED)
    return Archive(
        title="Tiny",
        stem="tiny",
        system=tmp_path / "system",
        url=f"{remote.as_uri()}/",
        install="apt-get install dataset-tiny",
        sha256={NAME: hashlib.sha256(CONTENT).hexdigest()},
    )


def put(folder: Path, packed: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_bytes(packed)
    return folder / NAME


def test_system_comes_first_however_it_was_packed(archive: Archive, tmp_path: Path) -> None:
    unreachable = replace(archive, url=(tmp_path / "nowhere").as_uri() + "/")
    for level in (1, 9):
        put(archive.system, gzip.compress(CONTENT, level))
        assert unreachable.read(NAME, tmp_path / "data") == CONTENT
    assert not (tmp_path / "data").exists()


def test_then_the_data_folder(archive: Archive, tmp_path: Path) -> None:
    put(tmp_path / "data" / "tiny", PACKED)
    unreachable = replace(archive, url=(tmp_path / "nowhere").as_uri() + "/")
    assert unreachable.read(NAME, tmp_path / "data") == CONTENT


def test_then_it_is_downloaded_once(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    assert archive.read(NAME, folder) == CONTENT
    assert [path.name for path in (folder / "tiny").iterdir()] == [NAME]
    (tmp_path / "remote" / NAME).unlink()
    assert archive.read(NAME, folder) == CONTENT


def test_nowhere_to_be_found(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "remote" / NAME).unlink()
    with pytest.raises(DataError, match="Tiny is neither in") as caught:
        archive.read(NAME, tmp_path / "data")
    message = str(caught.value)
    assert "Install it with `apt-get install dataset-tiny`, or put data-idx1-ubyte.gz into" in message
    assert str(tmp_path / "data" / "tiny") in message
    assert str(archive.system) in message
    assert not (tmp_path / "data").exists()


def test_other_content_is_refused_wherever_it_lies(archive: Archive, tmp_path: Path) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    for folder in (archive.system, tmp_path / "data" / "tiny"):
        path = put(folder, gzip.compress(b"other", mtime=0))
        with pytest.raises(DataError, match=f"its content has SHA-256 {other}, it should have") as caught:
            archive.read(NAME, tmp_path / "data")
        assert str(caught.value).startswith(str(path))
        path.unlink()


def test_a_wrong_download_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "remote" / NAME).write_bytes(gzip.compress(b"a login page", mtime=0))
    with pytest.raises(DataError, match="does not hold the Tiny that is expected"):
        archive.read(NAME, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("packed", [PACKED[:-9], b"not gzip", b"", PACKED[:12]])
def test_damaged_files(archive: Archive, tmp_path: Path, packed: bytes) -> None:
    put(tmp_path / "data" / "tiny", packed)
    with pytest.raises(DataError, match=r"Delete it and let it be downloaded again, or reinstall with `apt-get"):
        archive.read(NAME, tmp_path / "data")


def test_a_folder_that_cannot_be_written(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot be written"):
        archive.read(NAME, tmp_path / "data")
