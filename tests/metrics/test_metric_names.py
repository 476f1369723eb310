from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from typing import get_args

import pytest
import torch

import transfuse.metrics
from transfuse.metrics import default_selection_metric, higher_is_better, metric_names, per_example, score, scores
from transfuse.types import DataError, HyperparameterError, Task, TaskKind

KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


def good_and_bad(kind: TaskKind) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if kind == "classification":
        targets = torch.tensor([0, 1, 2, 0, 1, 2])
        good = torch.eye(3)[targets] * 8
        return good, -good, targets
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    return (targets, -targets, targets) if kind == "regression" else (16 * targets - 8, 8 - 16 * targets, targets)


@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_what_the_metrics_do(kind: TaskKind) -> None:
    good, bad, targets = good_and_bad(kind)
    task = Task(name="y", kind=kind, outputs=good.shape[1])
    better, worse = scores(task, good, targets), scores(task, bad, targets)
    assert tuple(better) == metric_names(kind)
    for name in better:
        assert (better[name] > worse[name]) == higher_is_better(name), name
        assert better[name] != worse[name], name


@pytest.mark.parametrize("kind", KINDS)
def test_one_score_is_that_of_all(kind: TaskKind) -> None:
    good, bad, targets = good_and_bad(kind)
    task = Task(name="y", kind=kind, outputs=good.shape[1])
    outputs = 0.3 * good + 0.7 * bad
    assert {name: score(task, outputs, targets, name) for name in metric_names(kind)} == scores(task, outputs, targets)


def test_default_selection_metrics() -> None:
    assert [default_selection_metric(kind) for kind in KINDS] == ["nll", "nll", "rmse"]
    assert all(default_selection_metric(kind) in metric_names(kind) for kind in KINDS)


def test_unknown_metrics_are_named_with_the_nearest() -> None:
    task = Task(name="y", kind="classification", outputs=2)
    with pytest.raises(HyperparameterError, match=r"Found `metric = acuracy`. Did you mean `accuracy`\?"):
        score(task, torch.zeros(1, 2), torch.zeros(1).long(), "acuracy")
    with pytest.raises(HyperparameterError, match=r"should be one of accuracy, f1_macro, .*Found `metric = rmse`"):
        per_example(task, torch.zeros(1, 2), torch.zeros(1).long(), "rmse")
    with pytest.raises(HyperparameterError, match=r"Did you mean `brier`\?"):
        higher_is_better("briers")


def test_metrics_that_are_no_means_have_no_values_per_example() -> None:
    task = Task(name="y", kind="classification", outputs=2)
    with pytest.raises(HyperparameterError, match=r"mean over examples: accuracy, nll, brier. Found `metric = auroc`"):
        per_example(task, torch.zeros(1, 2), torch.zeros(1).long(), "auroc")


def test_an_undefined_score_is_an_error_not_a_number() -> None:
    task = Task(name="y", kind="classification", outputs=2)
    with pytest.raises(DataError, match="`auroc` of task y is undefined for these 2 examples"):
        score(task, torch.zeros(2, 2), torch.zeros(2).long(), "auroc")


@pytest.mark.parametrize("module", [found.name for found in pkgutil.iter_modules(transfuse.metrics.__path__)])
def test_docstring_examples(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"transfuse.metrics.{module}")).failed == 0


def test_importing_and_scoring_loads_nothing_heavy() -> None:
    code = """
import sys, torch
from transfuse.metrics import scores
from transfuse.types import Task
scores(Task(name="y", kind="multilabel", outputs=2), torch.eye(2), torch.eye(2))
heavy = {"hydra", "mlflow", "pytorch_lightning", "torchmetrics", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
