"""Choosing one of several whole networks on validation data, with an honest score of the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from transfuse.metrics import scores
from transfuse.strategy.base import Context
from transfuse.strategy.cross_fit import best_candidate, cross_fit_selection, folds
from transfuse.types import Scores


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen candidate, its in-sample scores (`fit`), and the cross-fitted ones (`validation`)."""

    index: int
    validation: Mapping[str, Scores]
    fit: Mapping[str, Scores]


def select_network(context: Context, candidates: Sequence[Mapping[str, Tensor]]) -> Selection:
    """The candidate with the best selection metric on validation data; the first of equals.

    Args:
        context: of the run: its validation data, selection metric and folds.
        candidates: J mappings task -> (N, C) outputs on the validation split.
    """
    tasks = {task.name: task for task in context.development.tasks}
    targets = context.development.validation.targets
    metric = context.selection_metric
    first = next(iter(tasks))
    folds_N = folds(targets[first], len(targets[first]), context.cross_fit, context.generator("cross_fit"))
    honest = cross_fit_selection(tasks, candidates, targets, metric=metric, folds_N=folds_N)
    index = best_candidate(tasks, candidates, targets, metric=metric)
    return Selection(
        index=index,
        validation={name: scores(task, honest[name], targets[name]) for name, task in tasks.items()},
        fit={name: scores(task, candidates[index][name], targets[name]) for name, task in tasks.items()},
    )
