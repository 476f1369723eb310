from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfuse.evidence import holm
from transfuse.types import DataError


def test_closed_form() -> None:
    # sorted 0.01, 0.02, 0.03, 0.20: 4 x 0.01, 3 x 0.02, max(0.06, 2 x 0.03), 1 x 0.20
    assert holm([0.20, 0.01, 0.03, 0.02]) == pytest.approx([0.20, 0.04, 0.06, 0.06])


def test_order_is_kept_monotone_and_capped() -> None:
    # 3 x 0.4 is cut at 1, and nothing after it is smaller
    assert holm([0.6, 0.4, 0.5]) == [1.0, 1.0, 1.0]


def test_one_comparison_is_left_alone() -> None:
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_unknown_does_not_count() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_lies_between_raw_and_bonferroni_and_rejects_what_the_step_down_does(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, value in zip(p_values, adjusted, strict=True):
        assert raw <= value <= min(1.0, len(p_values) * raw) + 1e-12
    # the procedure as published: reject from the smallest on until one exceeds alpha / (number left)
    rejected = 0
    for left, raw in zip(range(len(p_values), 0, -1), sorted(p_values), strict=True):
        if raw * left > 0.05:
            break
        rejected += 1
    assert sum(value <= 0.05 for value in adjusted) == rejected


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"should be in \[0, 1\]"):
        holm([0.1, 1.1])
