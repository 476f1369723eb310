"""Honest validation scores: what is judged on an example was fitted, or chosen, without it.

Dimensions in tensor names: J candidates, N examples, C classes (labels, targets).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from transfuse.metrics import higher_is_better, mean_over_tasks, metric_of, score
from transfuse.types import DataError, HyperparameterError, Task


def folds(labels_N: Tensor | None, num_examples: int, k: int, generator: torch.Generator) -> Tensor:
    """Assigns every example to one of `k` folds, at random.

    Examples are shuffled, stably sorted by class, and dealt to the folds in turn: fold sizes differ by at most one, and
    so does the number of examples of any class.

    Args:
        labels_N: (N,) integer classes to stratify by; None, or labels of any other shape, for folds of random examples.
        num_examples: N.
        k: number of folds, >= 2.
        generator: of the shuffle.

    Returns:
        (N,) int64 fold numbers in [0, k).

    Raises:
        HyperparameterError: when k < 2 or N < k.

    Example:
        >>> folds(torch.tensor([0, 0, 1, 1]), 4, 2, torch.Generator().manual_seed(0))[:2].unique()
        tensor([0, 1])
    """
    if k < 2:
        raise HyperparameterError(f"`cross_fit` should be >= 2. Found `cross_fit = {k}`.")
    if num_examples < k:
        raise HyperparameterError(
            f"`cross_fit` should be at most the number of validation examples. "
            f"Found `cross_fit = {k}` and {num_examples} examples."
        )
    order = torch.randperm(num_examples, generator=generator)
    if labels_N is not None and labels_N.ndim == 1 and not labels_N.is_floating_point():
        order = order[torch.sort(labels_N.cpu()[order], stable=True).indices]
    folds_N = torch.empty(num_examples, dtype=torch.int64)
    folds_N[order] = torch.arange(num_examples) % k
    return folds_N


def cross_fit(fit_and_predict: Callable[[Tensor, Tensor, int], Tensor], folds_N: Tensor) -> Tensor:
    """Predictions for every example from a fit that did not see it.

    Args:
        fit_and_predict: called once a fold as `fit_and_predict(rest, held, fold)` with int64 positions: fits on `rest`
            and returns outputs (len(held), C) for `held`.
        folds_N: (N,) fold numbers from `folds`.

    Returns:
        (N, C) outputs in the examples' order.

    Example:
        >>> y_N = torch.tensor([0.0, 2.0, 4.0, 6.0])
        >>> folds_N = torch.tensor([0, 0, 1, 1])
        >>> cross_fit(lambda rest, held, fold: y_N[rest].mean().expand(len(held), 1), folds_N).squeeze(1)
        tensor([5., 5., 1., 1.])
    """
    parts, positions = [], []
    for fold in sorted(set(folds_N.tolist())):
        held = (folds_N == fold).nonzero().squeeze(1)
        rest = (folds_N != fold).nonzero().squeeze(1)
        parts.append(fit_and_predict(rest, held, fold))
        positions.append(held)
    return torch.cat(parts)[torch.cat(positions).argsort()]


def cross_fit_selection(
    task_by_name: Mapping[str, Task],
    candidates: Sequence[Mapping[str, Tensor]],
    targets: Mapping[str, Tensor],
    *,
    metric: str,
    folds_N: Tensor,
) -> dict[str, Tensor]:
    """Outputs of "the best candidate", chosen for each fold by the examples of the other folds.

    For strategies that pick whole networks: the score of these outputs is honest about the choice.

    Args:
        task_by_name: the tasks that count.
        candidates: J mappings task name -> (N, C) outputs.
        targets: task name -> targets of the N examples.
        metric: what `best_candidate` compares.
        folds_N: (N,) fold numbers from `folds`.

    Returns:
        Task name -> (N, C) outputs: those of fold f come from the candidate that is best on all other folds.
    """
    chosen: dict[int, int] = {}
    for fold in sorted(set(folds_N.tolist())):
        rest = folds_N != fold
        chosen[fold] = best_candidate(
            task_by_name,
            [{name: outputs[name][rest] for name in task_by_name} for outputs in candidates],
            {name: targets[name][rest] for name in task_by_name},
            metric=metric,
        )
    return {
        name: cross_fit(lambda rest, held, fold, name=name: candidates[chosen[fold]][name][held], folds_N)  # type: ignore[misc]
        for name in task_by_name
    }


def best_candidate(
    task_by_name: Mapping[str, Task],
    candidates: Sequence[Mapping[str, Tensor]],
    targets: Mapping[str, Tensor],
    *,
    metric: str,
) -> int:
    """Index of the candidate with the best `metrics.mean_over_tasks` of `metric`; the first of equals.

    A candidate for which the metric is undefined never wins against one for which it is defined.
    """
    tasks = list(task_by_name.values())
    direction = metric_of(tasks[0], metric) if len(tasks) == 1 else metric
    sign = 1.0 if higher_is_better(direction) else -1.0

    def goodness(outputs: Mapping[str, Tensor]) -> float:
        """The mean over tasks, larger is better."""
        found = {}
        for task in tasks:
            own = metric_of(task, metric)
            try:
                found[task.name] = {own: score(task, outputs[task.name], targets[task.name], own)}
            except DataError:  # undefined for these examples
                found[task.name] = {own: math.nan}
        return sign * mean_over_tasks(tasks, found, metric)

    values = [goodness(outputs) for outputs in candidates]
    return max(range(len(values)), key=lambda index: (values[index] == values[index], values[index], -index))
