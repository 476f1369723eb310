"""A multi-task run beside its single-task networks, where the run has them: its base models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from transfuse.base_models.model import BaseModel
from transfuse.evaluation.tables import write_table
from transfuse.metrics import DELTA_M_METRICS, normalized, unstable_tasks
from transfuse.types import Scores, Task


def write_normalized(
    folder: Path, tasks: Sequence[Task], validation: Mapping[str, Scores], members: Sequence[BaseModel]
) -> None:
    """Writes `normalized.csv`: a row for each task that a base model was trained for alone; no such task, no file.

    Scores are those of the validation split, in the metrics that delta-m uses; see `transfuse.metrics.normalized`.

    Args:
        folder: of the run's analysis; it exists.
        tasks: of the problem.
        validation: of the fused model.
        members: the base models of the run.
    """
    rows = list(_rows(tasks, validation, members)) if len(tasks) > 1 else []
    if rows:
        write_table(folder / "normalized.csv", ("task", "metric", "fused", "single_task", "normalized"), rows)


def _rows(
    tasks: Sequence[Task], validation: Mapping[str, Scores], members: Sequence[BaseModel]
) -> Iterator[tuple[object, ...]]:
    for task in tasks:
        single = next((member for member in members if member.description.tasks == (task.name,)), None)
        for metric in DELTA_M_METRICS[task.kind]:
            own = None if single is None else single.validation.get(task.name, {}).get(metric)
            value = validation.get(task.name, {}).get(metric)
            if own is None or value is None or unstable_tasks({task.name: {metric: own}}):
                continue
            share = normalized({task.name: {metric: value}}, {task.name: {metric: own}})[task.name]
            yield task.name, metric, value, own, share
