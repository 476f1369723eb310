from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, assert_golden, conflicting, label, records
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", records("cagrad"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 5e-4)


@pytest.mark.parametrize("record", records("cagrad"), ids=label)
def test_the_worst_off_task_is_served_as_well_as_by_the_peer(record: dict[str, Any]) -> None:
    gradients_TP = torch.from_numpy(arrays()[record["jacobian"]])
    found = transfuse.balance(gradients_TP, method="cagrad", scale="published", **record["parameters"])
    worst, length = (gradients_TP @ found.direction_P).min().item(), gradients_TP.norm(dim=1).max().item()
    assert worst >= record["min_inner_product"] - 1e-6 * length * record["norm"]


@pytest.mark.parametrize("c", [0.0, 0.5, 2.0])
def test_the_direction_stays_near_the_average(c: float) -> None:
    gradients_TP = conflicting(5, spread=10.0)
    average_P = gradients_TP.mean(0)
    direction_P = transfuse.balance(gradients_TP, method="cagrad", scale="published", c=c).direction_P
    assert (direction_P - average_P).norm() <= (c + 1e-9) * average_P.norm()


@pytest.mark.parametrize(
    ("given", "message"), [({"c": -0.5}, "`c` should be >= 0"), ({"rescale": 3}, "`rescale` should")]
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        transfuse.balance(conflicting(2), method="cagrad", **given)
