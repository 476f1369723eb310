"""How many examples of a batch are labelled, task by task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transfuse.data.loaders import Batch
from transfuse.types import Split, Task


def labelled(task: Task, targets: Tensor) -> Tensor:
    """Which entries of a task's targets are labels: not -1 for classification, not NaN for the other kinds."""
    return targets >= 0 if task.kind == "classification" else ~torch.isnan(targets)


def partially_labelled(tasks: Sequence[Task], *splits: Split) -> tuple[bool, ...]:
    """For each task whether an example of any split lacks a label."""
    return tuple(
        any(not bool(labelled(task, split.targets[task.name]).all()) for split in splits if task.name in split.targets)
        for task in tasks
    )


def label_counts(tasks: Sequence[Task], batch: Batch, partial: Sequence[bool]) -> list[float]:
    """Labelled examples of each task; where several numbers are predicted, labelled numbers over their number.

    Args:
        tasks: in order.
        batch: of examples.
        partial: of each task whether to look; the others are labelled throughout.
    """
    return [
        float(labelled(task, batch.targets[task.name]).sum()) / (1 if task.kind == "classification" else task.outputs)
        if looks
        else float(len(batch.ids))
        for task, looks in zip(tasks, partial, strict=True)
    ]
