"""The end of a sweep: the leaderboard on the terminal, in files and in MLflow, whatever happened to single jobs."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transfuse.config import tracker_of
from transfuse.report import Comparison, find_sweep, job_folders, report
from transfuse.sweep.folders import discard
from transfuse.tracking import RunRecord, Tracker
from transfuse.types import ConfigError, TransfuseError

log = logging.getLogger(__name__)


def finish(sweep: str) -> int:
    """Reports on the jobs that the sweep has; a sweep without any (its overrides were wrong) leaves no trace.

    Args:
        sweep: its folder.

    Returns:
        1 when a job failed or the report could not be made, else 0.
    """
    folder = Path(sweep)
    if not job_folders(folder):
        discard(folder)
        return 1
    try:
        return settle(folder)
    except TransfuseError as error:
        log.error("The leaderboard of %s cannot be made: %s", folder, error)
        return 1


def report_again(config: DictConfig) -> None:
    """The command `transfuse-report`: what the end of a sweep does, for any sweep; exits 1 where a job failed."""
    for key, kind in (("sweep", str), ("outputs", str), ("level", float)):
        if not isinstance(config[key], kind) or config[key] == "":
            raise ConfigError(
                f"`{key}` should be {'a number' if kind is float else 'text'}. Found `{key} = {config[key]}`."
            )
    if not 0 < config.level < 1:
        raise ConfigError(f"`level` should be in (0, 1). Found `level = {config.level}`.")
    sys.exit(settle(find_sweep(config.sweep, Path(config.outputs).expanduser().absolute()), config.level))


def settle(folder: Path, level: float = 0.95) -> int:
    """Prints, writes and tracks the report of a sweep; 1 when one of its jobs failed, else 0."""
    comparison = report(folder, level=level)
    composed = folder / "multirun.yaml"
    if composed.exists():
        track(comparison, tracker_of(OmegaConf.load(composed)))
    return 1 if comparison.failed else 0


def track(comparison: Comparison, tracker: Tracker) -> None:
    """Writes the report and what only the whole sweep can tell to MLflow."""
    for folder, scores in comparison.added.items():
        run = RunRecord.read(folder).tracking.get("run_id") or ""
        tracker.metrics(run, scores)
    parent = comparison.sweep / ".tracking-run"
    run = parent.read_text() if parent.exists() else ""
    tracker.metrics(run, {"base_models/trained": comparison.trained, "base_models/reused": comparison.reused})
    # files, and the folder `figures` whole
    tracker.artifacts(run, sorted((comparison.sweep / "report").glob("*")), "report")
    tracker.finish(run, "failed" if comparison.failed else "finished")
