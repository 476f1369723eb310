"""Settings that every strategy of a sweep tunes for itself: of each grid the run that is best on validation data."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfuse.metrics import DELTA_M_METRICS, delta_m, higher_is_better, metric_of, unstable_tasks
from transfuse.tracking.record import RunRecord
from transfuse.types import Scores, Task


@dataclass(frozen=True, kw_only=True)
class Picked:
    """The runs that count.

    Attributes:
        records: job folder -> record.
        notes: how many of how many, in a sentence; none where nothing is tuned.
    """

    records: dict[Path, RunRecord]
    notes: tuple[str, ...] = ()


def tuned(record: RunRecord) -> tuple[str, ...]:
    """The dotted keys of the run's `evaluation.tuned`."""
    return tuple((record.config.get("evaluation") or {}).get("tuned") or ())


def without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the settings that `evaluation.tuned` names: they make no other arm."""
    found = copy.deepcopy(dict(config))
    for key in (found.get("evaluation") or {}).get("tuned") or ():
        *parents, last = key.split(".")
        node: Any = found
        for name in parents:
            node = node.get(name) if isinstance(node, Mapping) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return found


def pick(records: Mapping[Path, RunRecord]) -> Picked:
    """Of runs that differ in tuned settings alone, the one with the best validation scores; the first of equals.

    With one task that is the selection metric; with several, delta-m against the first run of the grid, on validation
    data. The choice is made for each seed: it is part of what is compared, and test scores have no part in it.
    """
    grids: dict[str, list[Path]] = {}
    for folder, record in records.items():
        grids.setdefault(_arm(record) if tuned(record) else str(folder), []).append(folder)
    if len(grids) == len(records):
        return Picked(records=dict(records))
    chosen = {_best(grid, records) for grid in grids.values()}
    keys = ", ".join(dict.fromkeys(key for record in records.values() for key in tuned(record)))
    sizes = sorted({len(grid) for grid in grids.values()})
    note = (
        f"{keys}: each strategy takes its best of {' to '.join(map(str, sorted({sizes[0], sizes[-1]})))} runs on "
        f"validation data, seed by seed; {len(chosen)} of {len(records)} runs count, and costs are theirs alone."
    )
    return Picked(records={folder: record for folder, record in records.items() if folder in chosen}, notes=(note,))


def _arm(record: RunRecord) -> str:
    """Equal for runs of one grid."""
    config = without({key: value for key, value in record.config.items() if key not in ("paths", "tracking", "hydra")})
    return json.dumps([record.strategy, record.data, record.model, record.seed, config], sort_keys=True, default=str)


def _best(grid: Sequence[Path], records: Mapping[Path, RunRecord]) -> Path:
    problem = records[grid[0]].problem
    tasks = [Task(name=task["name"], kind=task["kind"], outputs=0) for task in problem["tasks"]]
    if len(tasks) == 1:
        metric = metric_of(tasks[0], problem["selection_metric"])
        sign = 1.0 if higher_is_better(metric) else -1.0
        values = [sign * records[folder].metrics[f"validation/{metric}"] for folder in grid]
        return grid[int(np.argmax(values))]
    found = [_by_task(tasks, records[folder]) for folder in grid]
    unstable = unstable_tasks(found[0])
    first = {task: values for task, values in found[0].items() if task not in unstable}
    return grid[int(np.argmax([delta_m(values, first) if any(first.values()) else 0.0 for values in found]))]


def _by_task(tasks: Sequence[Task], record: RunRecord) -> dict[str, Scores]:
    return {
        task.name: {
            name: record.metrics[f"validation/{task.name}/{name}"]
            for name in DELTA_M_METRICS[task.kind]
            if f"validation/{task.name}/{name}" in record.metrics
        }
        for task in tasks
    }
