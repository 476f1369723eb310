"""The end of a sweep: the leaderboard on the terminal, in files and in MLflow, whatever happened to single jobs."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import OmegaConf

from transfuse.config import tracker_of
from transfuse.report import Comparison, job_folders, report
from transfuse.sweep.folders import discard
from transfuse.tracking import RunRecord, Tracker
from transfuse.types import TransfuseError

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
        log.error("The sweep had no job.")
        return 1
    try:
        comparison = report(folder)
    except TransfuseError as error:
        log.error("The leaderboard of %s cannot be made: %s", folder, error)
        return 1
    track(comparison, tracker_of(OmegaConf.load(folder / "multirun.yaml")))
    return 1 if comparison.failed else 0


def track(comparison: Comparison, tracker: Tracker) -> None:
    """Writes the report and what only the whole sweep can tell to MLflow."""
    for folder, scores in comparison.added.items():
        run = RunRecord.read(folder).tracking.get("run_id") or ""
        tracker.metrics(run, scores)
    parent = comparison.sweep / ".tracking-run"
    run = parent.read_text() if parent.exists() else ""
    tracker.metrics(run, {"base_models/trained": comparison.trained, "base_models/reused": comparison.reused})
    tracker.artifacts(run, sorted((comparison.sweep / "report").glob("*")), "report")
    tracker.finish(run, "failed" if comparison.failed else "finished")
