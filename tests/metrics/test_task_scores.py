from __future__ import annotations

import pytest

from transfuse.metrics import mean_over_tasks, mean_scores, metric_of, named
from transfuse.types import Task

CLASSES = Task(name="shape", kind="classification", outputs=3)
LABELS = Task(name="tags", kind="multilabel", outputs=4)
VALUES = Task(name="size", kind="regression", outputs=2, scale=(3.0, 4.0))


def test_names_in_the_record() -> None:
    assert named("validation", {"y": {"nll": 0.5, "ece": 0.1}}) == {"validation/nll": 0.5, "validation/ece": 0.1}
    assert named("test", {"a": {"nll": 0.5}, "b": {"rmse": 2.0}}) == {"test/a/nll": 0.5, "test/b/rmse": 2.0}
    assert named("test", {}) == {}


def test_mean_scores_leave_out_what_one_lacks() -> None:
    members = [{"nll": 0.2, "auroc": 0.9, "ece": 0.0}, {"nll": 0.4, "ece": 0.3}, {"nll": 0.9, "ece": 0.3, "auroc": 1.0}]
    assert mean_scores(members) == pytest.approx({"nll": 0.5, "ece": 0.2})


def test_a_kind_without_the_metric_takes_its_default() -> None:
    assert [metric_of(task, "accuracy") for task in (CLASSES, LABELS, VALUES)] == ["accuracy", "accuracy", "rmse"]
    assert metric_of(CLASSES, "f1_micro") == "nll"


def test_one_task_keeps_its_value() -> None:
    assert mean_over_tasks([CLASSES], {"shape": {"accuracy": 0.75, "nll": 9.0}}, "accuracy") == 0.75
    assert mean_over_tasks([VALUES], {"size": {"rmse": 10.0, "mae": 7.0}}, "rmse") == 10.0


def test_tasks_of_one_kind_are_averaged() -> None:
    found = {"shape": {"nll": 0.5, "accuracy": 0.9}, "tags": {"nll": 0.25, "accuracy": 0.5}}
    assert mean_over_tasks([CLASSES, LABELS], found, "nll") == pytest.approx(0.375)
    assert mean_over_tasks([CLASSES, LABELS], found, "accuracy") == pytest.approx(0.7)


def test_several_kinds_share_direction_and_units() -> None:
    found = {"shape": {"nll": 0.5, "accuracy": 0.9}, "size": {"rmse": 10.0, "r2": 0.5}}
    scale = (12.5) ** 0.5  # root mean square of 3 and 4
    assert mean_over_tasks([CLASSES, VALUES], found, "nll") == pytest.approx((0.5 + 10 / scale) / 2)
    assert mean_over_tasks([CLASSES, VALUES], found, "accuracy") == pytest.approx((0.9 - 10 / scale) / 2)
    assert mean_over_tasks([CLASSES, VALUES], found, "r2") == pytest.approx((-0.5 + 0.5) / 2)
