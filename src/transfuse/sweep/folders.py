"""Folders of runs and sweeps: what is removed when nothing happened in them."""

from __future__ import annotations

import shutil
from pathlib import Path


def discard(folder: Path, *, levels: int = 3) -> None:
    """Removes a folder in which nothing was done, and its parents as far as they are then empty."""
    shutil.rmtree(folder, ignore_errors=True)
    for parent in list(folder.parents)[:levels]:
        try:
            parent.rmdir()
        except OSError:
            return


def jobs(sweep: Path) -> list[Path]:
    """The job folders of a sweep, by number."""
    return sorted((path for path in sweep.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
