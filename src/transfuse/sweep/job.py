"""One Hydra job: a run whose failure, in a sweep, costs no other job its result."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfuse.config import read
from transfuse.experiment import Prepared, execute, prepare
from transfuse.metrics import mean_over_tasks
from transfuse.sweep.folders import discard
from transfuse.tracking import RunRecord, Tracker, versions
from transfuse.tracking.hardware import hardware
from transfuse.types import TransfuseError

log = logging.getLogger(__name__)


def job(config: DictConfig) -> float:
    """Runs one composed config in Hydra's output folder.

    Returns:
        The validation score by the run's selection metric, for sweepers; NaN for a failed job of a sweep.

    Raises:
        TransfuseError: in a run of its own. Bad input leaves no trace; a failure after the start leaves its record.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir).absolute() if hydra.mode == RunMode.MULTIRUN else None
    prepared: Prepared | None = None
    try:
        prepared = prepare(read(config, folder, parent=None if sweep is None else partial(parent_run, sweep)))
        record = execute(prepared)
        log.info("%s\n  %s", headline(record), folder)
        return objective(prepared, record)
    except Exception as error:
        if sweep is None and prepared is None:
            discard(folder)
            raise
        failure = f"{type(error).__name__}: {error}"
        failed_record(config, hydra.runtime.choices, failure).write(folder)
        if prepared is not None:
            prepared.journal.fail(failure)
        if sweep is None:
            raise
        log.error("This job failed: %s", failure, exc_info=not isinstance(error, TransfuseError))
        return math.nan


def objective(prepared: Prepared, record: RunRecord) -> float:
    """The validation score that sweepers optimize: of the selection metric, the mean over several tasks."""
    tasks = prepared.problem.development.tasks
    prefix = "validation/"
    flat = {name.removeprefix(prefix): value for name, value in record.metrics.items() if name.startswith(prefix)}
    by_task = {task.name: flat if len(tasks) == 1 else _below(flat, f"{task.name}/") for task in tasks}
    return mean_over_tasks(tasks, by_task, prepared.selection_metric)


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


def failed_record(config: DictConfig, choices: Mapping[str, Any], failure: str) -> RunRecord:
    """The record of a job that an error ended; names come from what was chosen, since nothing may have been built."""
    strategy = str(choices.get("strategy", ""))
    return RunRecord(
        status="failed",
        error=failure,
        config=_plain(config),
        seed=config.get("seed", 0),
        family=strategy.partition("/")[0],
        strategy=strategy,
        data=str(choices.get("data", "")),
        model=str(choices.get("model", "")),
        versions=versions(),
        hardware=hardware(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # the very reason of the failure may be an interpolation
        plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _below(flat: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}
