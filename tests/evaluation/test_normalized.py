from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.toy import SIGN, VALUE
from transfuse.base_models.model import BaseModel, MemberDescription
from transfuse.evaluation import write_normalized
from transfuse.models.architecture import Architecture


def member(*tasks: str, validation: Mapping[str, Mapping[str, float]]) -> BaseModel:
    return BaseModel(
        description=MemberDescription(name="m", key="k", architecture="mlp", layout="{}", tasks=tasks),
        architecture=Architecture(name="mlp", recipe={}, make=lambda: None),  # type: ignore[arg-type, return-value]
        state={},
        build=lambda: None,  # type: ignore[arg-type, return-value]
        validation=validation,
        seconds=0.0,
        trained_here=False,
    )


FUSED = {"sign": {"accuracy": 0.6, "nll": 1.0}, "value": {"rmse": 4.0, "r2": 0.1}}
START = member("sign", "value", validation={"sign": {"accuracy": 0.1}, "value": {"rmse": 9.0}})
SINGLE = (
    member("sign", validation={"sign": {"accuracy": 0.8, "nll": 0.5}}),
    member("value", validation={"value": {"rmse": 3.0}}),
)


def written(folder: Path, *args) -> list[dict[str, str]] | None:
    write_normalized(folder, *args)
    if not (folder / "normalized.csv").exists():
        return None
    with (folder / "normalized.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_task_beside_its_own_network(tmp_path: Path) -> None:
    rows = written(tmp_path, (SIGN, VALUE), FUSED, (START, *SINGLE))
    assert rows is not None
    assert [(row["task"], row["metric"], row["fused"], row["single_task"]) for row in rows] == [
        ("sign", "accuracy", "0.6", "0.8"),
        ("value", "rmse", "4.0", "3.0"),
    ]
    assert [float(row["normalized"]) for row in rows] == pytest.approx([0.75, 0.75])


def test_tasks_without_a_network_of_their_own_are_left_out(tmp_path: Path) -> None:
    rows = written(tmp_path, (SIGN, VALUE), FUSED, (START, SINGLE[1]))
    assert rows is not None and [row["task"] for row in rows] == ["value"]


@pytest.mark.parametrize(
    ("tasks", "members"),
    [((SIGN, VALUE), ()), ((SIGN, VALUE), (START,)), ((SIGN,), SINGLE[:1])],
    ids=["no members", "joint members", "one task"],
)
def test_no_file_where_nothing_can_be_said(tmp_path: Path, tasks, members) -> None:
    assert written(tmp_path, tasks, FUSED, members) is None


def test_a_baseline_of_zero_is_left_out(tmp_path: Path) -> None:
    perfect = member("value", validation={"value": {"rmse": 0.0}})
    assert written(tmp_path, (SIGN, VALUE), FUSED, (perfect,)) is None
