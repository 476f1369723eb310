"""Finds a sweep's folder and reads what its jobs left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transfuse.tracking.record import RunRecord
from transfuse.types import DataError


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A job without a result.

    Attributes:
        job: name of its folder in the sweep.
        what: strategy, data, model and seed as far as they are known.
        reason: `<ErrorClass>: <message>`, or that there is no record.
    """

    job: str
    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep's jobs left.

    Attributes:
        folder: of the sweep.
        records: job folder -> record, of jobs that wrote one (failed ones too), in job order.
        failures: jobs that failed, and jobs whose folder has no readable record.
    """

    folder: Path
    records: dict[Path, RunRecord]
    failures: tuple[Failure, ...]


def find_sweep(sweep: str | Path = "last", outputs: str | Path = "outputs") -> Path:
    """The folder of a sweep.

    Args:
        sweep: `last`, the newest of `<outputs>/sweeps/<date>/<time>`, or a sweep folder.
        outputs: where runs and sweeps are written (`paths.outputs`).

    Raises:
        DataError: there is no such sweep.
    """
    if str(sweep) != "last":
        folder = Path(sweep)
        if not job_folders(folder):
            raise DataError(f"{folder} should be a sweep folder with job folders 0, 1, ... in it. Found none.")
        return folder
    # dates and times sort as text; times of modification change when a report is written
    found = sorted(folder for folder in Path(outputs).glob("sweeps/*/*") if job_folders(folder))
    if not found:
        raise DataError(
            f"No sweep in {outputs}/sweeps. Start one with `transfuse -m ...`, or name its folder: sweep=<path>"
        )
    return found[-1]


def read_sweep(folder: Path) -> Sweep:
    """Reads every job's record; a job folder without a readable one counts as failed."""
    records: dict[Path, RunRecord] = {}
    failures = []
    for job in job_folders(folder):
        if not (job / "record.json").exists():
            failures.append(Failure(job=job.name, what="unknown", reason="no record: the job was killed?"))
            continue
        try:
            record = RunRecord.read(job)
        except (DataError, TypeError, AttributeError) as error:
            failures.append(Failure(job=job.name, what="unknown", reason=f"no readable record: {error}"))
            continue
        records[job] = record
        if record.status != "finished":
            failures.append(Failure(job=job.name, what=_what(record), reason=record.error or "no reason recorded"))
    return Sweep(folder=folder, records=records, failures=tuple(failures))


def count_base_models(records: dict[Path, RunRecord]) -> tuple[int, int]:
    """How many base models the sweep trained, and how many others it took from the store; each key counts once."""
    used = {model["key"] for record in records.values() for model in record.base_models}
    trained = {
        model["key"] for record in records.values() for model in record.base_models if model.get("trained_here", False)
    }
    return len(trained), len(used - trained)


def job_folders(folder: Path) -> list[Path]:
    """The jobs' folders in order: named by a number, or (with `hydra.sweep.subdir`) holding `.hydra` or a record."""
    if not folder.is_dir():
        return []
    numbered = {path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()}
    marked = {path.parent for name in (".hydra", "record.json") for path in folder.rglob(name)} - {folder}
    return sorted(numbered | marked, key=lambda job: (int(job.name) if job.name.isdecimal() else 0, str(job)))


def _what(record: RunRecord) -> str:
    named = ", ".join(name for name in (record.strategy, record.data, record.model) if name) or "unknown"
    return f"{named}, seed {record.seed}"
