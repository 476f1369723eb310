"""Judging whole networks on validation data: honest scores of a choice among candidates.

Dimensions in tensor names: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from transfuse.metrics import mean_over_tasks, scores
from transfuse.strategy.base import Context
from transfuse.strategy.cross_fit import best_candidate, cross_fit_selection, folds
from transfuse.types import Scores

Outputs = Mapping[str, Tensor]


def validation_scores(context: Context, outputs: Outputs) -> dict[str, Scores]:
    """Task -> metric -> value of outputs (N, C) on the validation split."""
    targets = context.development.validation.targets
    return {task.name: scores(task, outputs[task.name], targets[task.name]) for task in context.development.tasks}


def best(context: Context, candidates: Sequence[Outputs], metric: str) -> int:
    """Index of the best candidate on the whole validation split; the first of equals."""
    tasks = {task.name: task for task in context.development.tasks}
    return best_candidate(tasks, candidates, context.development.validation.targets, metric=metric)


def selection_score(context: Context, outputs: Outputs, metric: str) -> float:
    """The metric, averaged over tasks, in its own direction."""
    return mean_over_tasks(context.development.tasks, validation_scores(context, outputs), metric)


def honest_scores(context: Context, candidates: Sequence[Outputs], metric: str) -> dict[str, Scores]:
    """The scores of "the best of the candidates", each fold judged by a choice that did not see it."""
    tasks = {task.name: task for task in context.development.tasks}
    targets = context.development.validation.targets
    first = targets[next(iter(tasks))]
    folds_N = folds(first, len(first), context.cross_fit, context.generator("cross_fit"))
    return validation_scores(context, cross_fit_selection(tasks, candidates, targets, metric=metric, folds_N=folds_N))
