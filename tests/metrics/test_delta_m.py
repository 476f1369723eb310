from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transfuse.metrics import (
    DELTA_M_METRICS,
    delta_m,
    delta_m_literature,
    higher_is_better,
    metric_names,
    normalized,
    unstable_tasks,
)
from transfuse.types import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "multi_task" / "delta_m.json"
RECORDS = json.loads(GOLDEN.read_text())["delta_m"]
SINGLE = {"a": {"accuracy": 0.8}, "b": {"rmse": 2.0, "mae": 1.0}}


@pytest.mark.parametrize("record", RECORDS)
def test_golden_values(record: dict[str, Any]) -> None:
    def by_task(which: str) -> dict[str, dict[str, float]]:
        return {
            str(t): {f"{t}/{m}": value for m, value in enumerate(task[which])} for t, task in enumerate(record["tasks"])
        }

    single, multi = by_task("single"), by_task("multi")
    upward = {name: up for values in by_task("higher_is_better").values() for name, up in values.items()}
    ours = delta_m(multi, single, lambda name: bool(upward[name]))
    literature = delta_m_literature(multi, single, lambda name: bool(upward[name]))
    assert ours == pytest.approx(record["delta_m"], rel=1e-12)
    assert literature == pytest.approx(record["delta_m_literature"], rel=1e-12)


def test_closed_forms_and_signs() -> None:
    multi = {"a": {"accuracy": 0.88}, "b": {"rmse": 2.2, "mae": 1.5}}  # +10 %; -10 % and -50 %
    assert delta_m(multi, SINGLE) == pytest.approx((10 + (-10 - 50) / 2) / 2)
    assert delta_m_literature(multi, SINGLE) == pytest.approx(-(10 - 10 - 50) / 3)


def test_no_change_is_zero_in_both() -> None:
    assert delta_m(SINGLE, SINGLE) == 0
    assert delta_m_literature(SINGLE, SINGLE) == 0


def test_only_metrics_of_the_single_task_models_count() -> None:
    multi = {"a": {"accuracy": 0.88, "nll": 1e9}, "b": {"rmse": 2.0, "mae": 1.0}, "c": {"rmse": 1e9}}
    assert delta_m(multi, SINGLE) == pytest.approx(5)


def test_a_negative_baseline_keeps_the_sign() -> None:
    assert delta_m({"a": {"r2": -0.1}}, {"a": {"r2": -0.2}}) == pytest.approx(50)


@pytest.mark.parametrize(
    ("multi", "single", "message"),
    [
        ({"a": {"rmse": 1.0}}, {"a": {"rmse": 0.0}}, r"divides by the single-task `rmse` of task a. Found 0.0"),
        ({"a": {"rmse": 1.0}}, {"a": {"rmse": -9e-9}}, r"Found -9e-09"),
        ({"a": {"rmse": float("nan")}}, {"a": {"rmse": 1.0}}, r"finite scores. Found nan against 1.0"),
        ({"a": {"rmse": 1.0}}, {"a": {"rmse": float("inf")}}, r"finite scores. Found 1.0 against inf"),
        ({"a": {}}, {"a": {"rmse": 1.0}}, r"`rmse` of task a, which the multi-task scores do not have"),
        ({}, {"a": {"rmse": 1.0}}, r"`rmse` of task a, which"),
        ({"a": {"rmse": 1.0}}, {"a": {}}, r"at least one metric"),
    ],
)
@pytest.mark.parametrize("convention", [delta_m, delta_m_literature])
def test_ratios_without_meaning_are_refused(convention: Any, multi: Any, single: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        convention(multi, single)


def test_unstable_tasks() -> None:
    single = {"a": {"accuracy": 0.01}, "b": {"rmse": 0.049}, "c": {"rmse": 0.051}, "d": {"r2": 1e-9}}
    assert unstable_tasks(single) == ("d",)
    trivial = {"a": {"accuracy": 0.5}, "b": {"rmse": 1.0}, "c": {"rmse": 1.0}}
    assert unstable_tasks(single, trivial) == ("b", "d")


def test_default_metrics_exist() -> None:
    assert dict(DELTA_M_METRICS) == {
        "classification": ("accuracy",),
        "multilabel": ("f1_macro",),
        "regression": ("rmse",),
    }
    for kind, names in DELTA_M_METRICS.items():
        assert set(names) <= set(metric_names(kind))
        assert all(higher_is_better(name) == (kind != "regression") for name in names)


def test_normalized_scores() -> None:
    multi = {"a": {"accuracy": 0.6}, "b": {"rmse": 4.0, "mae": 4.0}}
    assert normalized(multi, SINGLE) == pytest.approx({"a": 0.75, "b": (0.5 + 0.25) / 2})
    assert normalized(SINGLE, SINGLE) == {"a": 1.0, "b": 1.0}
    # where higher is better, 100 (normalized - 1) is the task's part of delta-m
    upward = {"a": {"accuracy": 0.6}, "c": {"f1_macro": 0.55}}, {"a": {"accuracy": 0.8}, "c": {"f1_macro": 0.5}}
    shares = normalized(*upward)
    assert delta_m(*upward) == pytest.approx(100 * (sum(shares.values()) / 2 - 1))
    with pytest.raises(DataError, match="which the multi-task scores do not have"):
        normalized({"a": {}}, {"a": {"accuracy": 0.8}})
    with pytest.raises(DataError, match="Leave this task out"):
        normalized({"b": {"rmse": 1.0}}, {"b": {"rmse": 0.0}})
