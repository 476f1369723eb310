"""Scores of predictions: all metrics of a task's kind, one of them, or one of them example by example."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from transfuse.metrics import classification, multilabel, regression
from transfuse.metrics.by_class import ByClass, of_classes, of_labels
from transfuse.metrics.names import metric_names, unknown_metric
from transfuse.types import DataError, HyperparameterError, PredictionError, Scores, Task, TaskKind

_Metric = Callable[[Tensor, Tensor], Tensor]
_METRICS: Mapping[TaskKind, Mapping[str, _Metric]] = {
    "classification": classification.METRICS,
    "multilabel": multilabel.METRICS,
    "regression": regression.METRICS,
}
_PER_EXAMPLE: Mapping[TaskKind, Mapping[str, _Metric]] = {
    "classification": classification.PER_EXAMPLE,
    "multilabel": multilabel.PER_EXAMPLE,
    "regression": regression.PER_EXAMPLE,
}


def scores(task: Task, outputs_NC: Tensor, targets: Tensor) -> Scores:
    """All metrics of the task's kind, computed in float64 on the labelled examples.

    Args:
        task: what is predicted.
        outputs_NC: (N, C) logits, for regression values in the targets' own units.
        targets: (N,) class indices with -1 for unlabelled, or (N, C) zeros and ones or values with NaN for unlabelled.

    Returns:
        Metric name to value, in the order of `metric_names`. A metric that is undefined for these data (`auroc` with
        one class, `r2` of a constant target, anything without labels) is left out.

    Raises:
        PredictionError: outputs are NaN, or do not fit the targets.

    >>> task = Task(name="y", kind="classification", outputs=2)
    >>> scores(task, torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))["accuracy"]
    0.5
    """
    outputs_NC, targets = _prepared(task, outputs_NC, targets)
    if len(outputs_NC) == 0:
        return {}
    return _defined(task, outputs_NC, targets, known={})


def scores_and_classes(task: Task, outputs_NC: Tensor, targets: Tensor) -> tuple[Scores, ByClass | None]:
    """`scores`, and the classes or labels one by one, whose means F1 and AUROC are: nothing is computed twice.

    Returns:
        The scores; and None for regression and without labelled examples, else one entry a class or label.
    """
    outputs_NC, targets = _prepared(task, outputs_NC, targets)
    if len(outputs_NC) == 0:
        return {}, None
    if task.kind == "regression":
        return _defined(task, outputs_NC, targets, known={}), None
    found = of_classes(outputs_NC, targets) if task.kind == "classification" else of_labels(outputs_NC, targets)
    # of two classes, the AUROC is that of class 1
    auroc_C = found.auroc_C[1:] if task.kind == "classification" and task.outputs == 2 else found.auroc_C
    known = {"f1_macro": float(found.f1_C.nanmean()), "auroc": float(auroc_C.nanmean())}
    return _defined(task, outputs_NC, targets, known=known), found


def score(task: Task, outputs_NC: Tensor, targets: Tensor, metric: str) -> float:
    """One metric of `scores`, at the price of that one.

    Raises:
        HyperparameterError: the task's kind has no such metric.
        DataError: the metric is undefined for these data.
        PredictionError: outputs are NaN, or do not fit the targets.
    """
    if metric not in _METRICS[task.kind]:
        raise unknown_metric(metric, metric_names(task.kind), "metric")
    value = float(_METRICS[task.kind][metric](*_prepared(task, outputs_NC, targets)))
    if math.isnan(value):
        raise DataError(
            f"`{metric}` of task {task.name} is undefined for these {len(targets)} examples "
            f"(no labels, one class or a constant target). Did you mean another metric?"
        )
    return value


def per_example(task: Task, outputs_NC: Tensor, targets: Tensor, metric: str) -> Tensor:
    """The metric of each example, for metrics that are means over examples.

    `nll`, `brier`, `accuracy` (multilabel also `hamming_loss`); for regression the squared error under the name `rmse`
    (whose mean is its square) and the absolute error under `mae`.

    Returns:
        (N,) float64; NaN for unlabelled examples.

    Raises:
        HyperparameterError: the metric is not a mean over examples, or not one of the task's kind.
    """
    if metric not in _METRICS[task.kind]:
        raise unknown_metric(metric, metric_names(task.kind), "metric")
    if metric not in _PER_EXAMPLE[task.kind]:
        means = ", ".join(_PER_EXAMPLE[task.kind])
        raise HyperparameterError(f"`metric` should be a mean over examples: {means}. Found `metric = {metric}`.")
    outputs_NC, targets = _checked(task, outputs_NC, targets)
    if task.kind != "classification":
        return _PER_EXAMPLE[task.kind][metric](outputs_NC, targets)
    values_N = torch.full((len(targets),), torch.nan, dtype=torch.float64)
    labelled_N = targets >= 0
    values_N[labelled_N] = _PER_EXAMPLE[task.kind][metric](outputs_NC[labelled_N], targets[labelled_N])
    return values_N


def _defined(task: Task, outputs_NC: Tensor, targets: Tensor, known: Mapping[str, float]) -> Scores:
    """The metrics that are defined for prepared predictions; those that are `known` are not computed."""
    values = {
        name: known[name] if name in known else float(metric(outputs_NC, targets))
        for name, metric in _METRICS[task.kind].items()
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _prepared(task: Task, outputs_NC: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """What the metrics of the kind take, with unlabelled examples left out where a kind marks whole examples."""
    outputs_NC, targets = _checked(task, outputs_NC, targets)
    if task.kind == "classification" and len(targets) > 0 and int(targets.min()) < 0:
        labelled_N = targets >= 0
        outputs_NC, targets = outputs_NC[labelled_N], targets[labelled_N]
    return outputs_NC, targets


def _checked(task: Task, outputs_NC: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Float64 log-probabilities, logits or values by kind, and targets, on the CPU, after checking that they fit."""
    outputs_NC = torch.as_tensor(outputs_NC).detach().to("cpu", torch.float64)
    targets = torch.as_tensor(targets).detach().cpu()
    expected = outputs_NC.shape[:1] if task.kind == "classification" else outputs_NC.shape
    if outputs_NC.ndim != 2 or targets.shape != expected:
        raise PredictionError(
            f"Outputs (N, C) and targets of the {task.kind} task {task.name} should have the same examples. "
            f"Found {tuple(outputs_NC.shape)} and {tuple(targets.shape)}."
        )
    if bool(outputs_NC.isnan().any()):
        raise PredictionError(f"Outputs of task {task.name} are NaN.")
    if task.kind != "classification":
        return outputs_NC, targets.double()
    if len(targets) > 0 and int(targets.max()) >= outputs_NC.shape[1]:
        raise PredictionError(
            f"Labels of task {task.name} should be below {outputs_NC.shape[1]}, the number of its outputs. "
            f"Found {int(targets.max())}."
        )
    return outputs_NC.log_softmax(1), targets.long()
