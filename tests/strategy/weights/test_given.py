from __future__ import annotations

import re
from typing import Any

import pytest

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.weights import Given
from transfuse.types import HyperparameterError

PREDICTIONS = make_predictions("classification", members=3)


def test_values_are_divided_by_their_sum() -> None:
    assert Given(values=[1, 0, 3]).weights(PREDICTIONS).values_M.tolist() == [0.25, 0.0, 0.75]


def test_normalized_values_are_taken_as_they_are() -> None:
    assert Given(values=[0.5, 0.25, 0.25], normalize=False).weights(PREDICTIONS).values_M.tolist() == [0.5, 0.25, 0.25]


def test_labels_are_not_read() -> None:
    assert not Given(values=[1]).fitted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": [1, -0.5, 1]}, "`weights.values` should be >= 0. Found -0.5 at position 1."),
        ({"values": [1, 1, float("nan")]}, "`weights.values` should be finite. Found nan at position 2."),
        ({"values": [float("inf"), 1]}, "`weights.values` should be finite. Found inf at position 0."),
        ({"values": ["a"]}, "`weights.values` should be a list of numbers. Found ['a']."),
        ({"values": None}, "`weights.values` should be a list of numbers. Found None."),
        ({"values": "12"}, "`weights.values` should be a list of numbers. Found '12'."),
        ({"values": [0, 0, 0]}, "`weights.values` should have an entry > 0. Found zeros only."),
        (
            {"values": [0.5, 0.6], "normalize": False},
            "`weights.values` should sum to 1 where `normalize = false`. Found a sum of 1.1.",
        ),
    ],
)
def test_values_that_are_no_weights(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        Given(**fields)


@pytest.mark.parametrize(
    ("values", "count", "message"),
    [
        ([1, 2, 3], 5, "`weights.values` should have 5 entries (one a member). Found 3."),
        ([], 1, "`weights.values` should have 1 entry (one a member). Found 0."),
    ],
)
def test_one_value_a_member(values: list[float], count: int, message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        Given(values=values).check_count(count)
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        Given(values=values).weights(make_predictions("classification", members=count))


def test_huge_values_do_not_overflow() -> None:
    found = Given(values=[1e308, 1e308, 0]).weights(make_predictions("classification", members=3))
    assert found.values_M.tolist() == [0.5, 0.5, 0.0]
