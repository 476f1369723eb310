"""Scores of several tasks or members together: their names in the record, and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from transfuse.metrics.names import default_selection_metric, higher_is_better, metric_names
from transfuse.types import Scores, Task

_IN_UNITS_OF_TARGETS = frozenset({"rmse", "mae"})


def named(split: str, scores_by_task: Mapping[str, Mapping[str, float]]) -> Scores:
    """Scores under the names of the record: `<split>/<metric>`, with several tasks `<split>/<task>/<metric>`.

    >>> named("test", {"y": {"nll": 0.5}})
    {'test/nll': 0.5}
    """
    several = len(scores_by_task) > 1
    return {
        f"{split}/{task}/{metric}" if several else f"{split}/{metric}": value
        for task, values in scores_by_task.items()
        for metric, value in values.items()
    }


def mean_scores(scores: Sequence[Mapping[str, float]]) -> Scores:
    """The mean of each metric, over members say; a metric that one of them lacks is left out.

    >>> mean_scores([{"nll": 0.25, "auroc": 1.0}, {"nll": 0.75}])
    {'nll': 0.5}
    """
    shared = [metric for metric in scores[0] if all(metric in values for values in scores)]
    return {metric: math.fsum(values[metric] for values in scores) / len(scores) for metric in shared}


def metric_of(task: Task, metric: str) -> str:
    """`metric` where the task's kind has it, else the default selection metric of the kind."""
    return metric if metric in metric_names(task.kind) else default_selection_metric(task.kind)


def mean_over_tasks(tasks: Sequence[Task], scores_by_task: Mapping[str, Mapping[str, float]], metric: str) -> float:
    """One number to select by, in the direction of `metric`: with one task its value, else the mean over tasks.

    In the mean, a task whose kind lacks `metric` enters with its default selection metric (negative where its direction
    is the opposite), and errors in the targets' units are divided by the task's `scale`, so that units do not decide.
    """
    if len(tasks) == 1:
        return scores_by_task[tasks[0].name][metric_of(tasks[0], metric)]
    upward = higher_is_better(metric)
    total = 0.0
    for task in tasks:
        own = metric_of(task, metric)
        value = scores_by_task[task.name][own] / (_scale(task) if own in _IN_UNITS_OF_TARGETS else 1.0)
        total += value if higher_is_better(own) == upward else -value
    return total / len(tasks)


def _scale(task: Task) -> float:
    """Root mean square of the targets' scales; 1 where they are unknown."""
    return math.sqrt(sum(scale**2 for scale in task.scale) / len(task.scale)) if task.scale else 1.0
