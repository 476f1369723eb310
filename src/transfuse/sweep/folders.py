"""Folders in which nothing was done: what was written into them is taken back, and nothing else."""

from __future__ import annotations

from pathlib import Path

_WRITTEN = (  # by Hydra and by us before anything begins
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "transfuse.log",
    "multirun.yaml",
)


def discard(folder: Path) -> None:
    """Removes what was written at the start of a run or sweep, then the folders that are empty without it.

    The folder may be the user's own (`hydra.run.dir=.`): other files stay, and the current folder and those above.
    """
    for name in _WRITTEN:
        (folder / name).unlink(missing_ok=True)
    kept = {Path.cwd(), *Path.cwd().parents}
    for candidate in [folder / ".hydra", *[folder, *folder.parents][:4]]:
        try:
            if candidate.absolute() not in kept:
                candidate.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return
