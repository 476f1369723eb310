"""The metrics of each kind of task: their names, directions and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from transfuse.types import HyperparameterError, TaskKind

_CLASSIFICATION = ("accuracy", "f1_macro", "auroc", "nll", "brier", "ece")
_NAMES: Mapping[TaskKind, tuple[str, ...]] = {
    "classification": _CLASSIFICATION,
    "multilabel": (*_CLASSIFICATION, "f1_micro", "average_precision", "hamming_loss"),
    "regression": ("rmse", "mae", "r2"),
}
_SELECTION: Mapping[TaskKind, str] = {"classification": "nll", "multilabel": "nll", "regression": "rmse"}
_HIGHER = frozenset({"accuracy", "f1_macro", "f1_micro", "auroc", "average_precision", "r2"})
_LOWER = frozenset({"nll", "brier", "ece", "hamming_loss", "rmse", "mae"})


def metric_names(kind: TaskKind) -> tuple[str, ...]:
    """The metrics that tasks of this kind have, in the order in which they are shown."""
    return _NAMES[kind]


def default_selection_metric(kind: TaskKind) -> str:
    """What is read on validation data to select something: `nll`, for regression `rmse`."""
    return _SELECTION[kind]


def higher_is_better(metric: str) -> bool:
    """Whether a larger value is better; `HyperparameterError` for a metric that does not exist.

    >>> higher_is_better("accuracy"), higher_is_better("nll")
    (True, False)
    """
    if metric not in _HIGHER and metric not in _LOWER:
        raise unknown_metric(metric, sorted(_HIGHER | _LOWER), "metric")
    return metric in _HIGHER


def unknown_metric(metric: str, names: Iterable[str], field: str) -> HyperparameterError:
    """The error for a metric that is not among `names`, with the nearest of them as a question."""
    from difflib import get_close_matches

    listed = list(names)
    near = get_close_matches(metric, listed, n=1)
    question = f" Did you mean `{near[0]}`?" if near else ""
    return HyperparameterError(f"`{field}` should be one of {', '.join(listed)}. Found `{field} = {metric}`.{question}")
