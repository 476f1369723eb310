from __future__ import annotations

from pathlib import Path

import pytest

from transfuse.data import DigitsLinear, DigitsTasks, FashionGroups, MultiFashion, SolarFlare, Yeast
from transfuse.types import HyperparameterError


def test_a_factor_reaches_its_task_alone(tmp_path: Path) -> None:
    plain = DigitsTasks().build(seed=0, folder=tmp_path).development
    scaled = DigitsTasks(tasks={"value": {"loss_scale": 3}}).build(seed=0, folder=tmp_path).development
    assert [task.loss_scale for task in plain.tasks] == [1.0, 1.0, 1.0]
    assert [task.loss_scale for task in scaled.tasks] == [1.0, 1.0, 3.0]
    assert plain.fingerprint != scaled.fingerprint


@pytest.mark.parametrize("kind", [DigitsLinear, DigitsTasks, FashionGroups, MultiFashion, SolarFlare, Yeast])
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"nothing": {"loss_scale": 1.0}}, "`tasks` names nothing, which is no task of these data"),
        ({"": {}}, "is no task of these data"),
    ],
)
def test_unknown_tasks_are_refused(kind, tasks, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        kind(tasks=tasks)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_factors_are_positive(value: float) -> None:
    with pytest.raises(HyperparameterError, match=r"`tasks.linear.loss_scale` should be > 0 and finite"):
        DigitsLinear(tasks={"linear": {"loss_scale": value}})


def test_other_settings_and_near_names_are_told() -> None:
    with pytest.raises(HyperparameterError, match=r"`tasks.linear` takes loss_scale. Found weight"):
        DigitsLinear(tasks={"linear": {"weight": 1.0}})
    with pytest.raises(HyperparameterError, match=r"Did you mean linear\?"):
        DigitsLinear(tasks={"liner": {"loss_scale": 1.0}})
