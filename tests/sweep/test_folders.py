from __future__ import annotations

from pathlib import Path

import pytest

from transfuse.sweep.folders import discard


def start(folder: Path) -> None:
    (folder / ".hydra").mkdir(parents=True)
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).write_text("")
    (folder / "transfuse.log").write_text("")


def test_a_folder_in_which_nothing_was_done_vanishes_with_its_empty_parents(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs" / "date" / "time"
    start(folder)
    discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_parents_with_other_content_stay(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "runs" / "date" / "time"
    start(folder)
    (tmp_path / "outputs" / "store").mkdir()
    discard(folder)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["store"]


def test_the_users_own_files_and_folders_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    discard(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    start(Path())
    discard(Path())
    assert (tmp_path / "here").exists() and list((tmp_path / "here").iterdir()) == []
