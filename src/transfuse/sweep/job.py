"""One Hydra job: a run whose failure, in a sweep, costs no other job its result."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfuse.config import read
from transfuse.experiment import Prepared, execute, failed_record, leave, prepare
from transfuse.metrics import mean_over_tasks
from transfuse.sweep.folders import discard
from transfuse.tracking import RunRecord, Tracker
from transfuse.types import TransfuseError

log = logging.getLogger(__name__)


def job(config: DictConfig) -> float:
    """Runs one composed config in Hydra's output folder.

    Returns:
        The validation score by the run's selection metric, for sweepers; NaN for a failed job of a sweep.

    Raises:
        TransfuseError: in a run of its own. Bad input leaves no trace; a failure after the start leaves its record.
        KeyboardInterrupt: the user stops it; as a failure, and no other job of a sweep begins.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir).absolute() if hydra.mode == RunMode.MULTIRUN else None
    try:
        prepared = prepare(read(config, folder, parent=None if sweep is None else partial(parent_run, sweep)))
    except (Exception, KeyboardInterrupt) as error:
        if sweep is None:
            discard(folder)
            raise
        leave(_unprepared(error, config, hydra.runtime.choices), folder)
        return _given_up(error)
    try:
        record = execute(prepared)
    except (Exception, KeyboardInterrupt) as error:
        if sweep is None:
            raise
        return _given_up(error)
    log.info("%s\n  %s", headline(record), folder)
    return objective(prepared, record)


def _given_up(error: BaseException) -> float:
    """What a failed job of a sweep is worth; an interruption goes on, so that no other job begins."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    log.error("This job failed: %s: %s", type(error).__name__, error, exc_info=not isinstance(error, TransfuseError))
    return math.nan


def objective(prepared: Prepared, record: RunRecord) -> float:
    """The validation score that sweepers optimize: of the selection metric, the mean over several tasks."""
    tasks = prepared.problem.development.tasks
    prefix = "validation/"
    flat = {name.removeprefix(prefix): value for name, value in record.metrics.items() if name.startswith(prefix)}
    by_task = {task.name: flat if len(tasks) == 1 else _below(flat, f"{task.name}/") for task in tasks}
    try:
        return mean_over_tasks(tasks, by_task, prepared.selection_metric)
    except KeyError as missing:
        log.warning("The validation split leaves %s undefined; a sweeper that optimizes it gets NaN.", missing)
        return math.nan


def headline(record: RunRecord) -> str:
    """A run's outcome in one line.

    Example:
        >>> headline(RunRecord(strategy="output_fusion/average", seed=1, metrics={"test/nll": 0.125}))
        'output_fusion/average, seed 1: test nll 0.125'
    """
    shown = ("accuracy", "nll", "rmse")
    scores = [
        f"{name.removeprefix('test/')} {value:.4g}"
        for name, value in record.metrics.items()
        if name.startswith("test/") and name.rpartition("/")[2] in shown
    ]
    return f"{record.strategy}, seed {record.seed}: test {', '.join(scores)}"


def parent_run(sweep: Path, tracker: Tracker) -> str:
    """Id of the sweep's own entry in MLflow, made by the first job that asks."""
    with FileLock(sweep / ".tracking.lock"):
        path = sweep / ".tracking-run"
        if not path.exists():
            content = OmegaConf.load(sweep / "multirun.yaml")
            overrides = list(content.hydra.overrides.task)
            name = f"{sweep.parent.name} {sweep.name.rpartition('-')[0]} {' '.join(overrides)}"[:250]
            path.write_text(tracker.start("sweep", name, tags={}, params={"overrides": overrides}, parent=None))
        return path.read_text()


def _unprepared(error: BaseException, config: DictConfig, choices: Mapping[str, Any]) -> RunRecord:
    """The record of a job whose parts do not fit: names come from what was chosen, since nothing was built."""
    names = {group: str(choices.get(group, "")) for group in ("strategy", "data", "model")}
    return failed_record(error, config=_plain(config), **names)


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # the very reason of the failure may be an interpolation
        plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _below(flat: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
