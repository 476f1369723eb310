from __future__ import annotations

import math

import pytest

from transfuse.report.ranges import limits, ordinary


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.11, 0.12, 0.13, 0.12, 2.0], [True] * 4 + [False]),
        ([0.11, 0.12, 2.0], [True, True, False]),
        ([0.1, 0.1, 2.0], [True] * 3),  # half of them equal: no spread to measure by
        ([0.1, 0.2, 5.0, 6.0], [True] * 4),  # two groups
        ([0.1, math.nan, 0.2], [True, False, True]),
        ([math.nan], [False]),
        ([], []),
    ],
)
def test_far_values_are_found(values: list[float], expected: list[bool]) -> None:
    assert ordinary(values) == tuple(expected)


def test_limits_hold_all_values_with_a_margin() -> None:
    assert limits([1.0, 2.0]) == pytest.approx((0.94, 2.06))
    low, high = limits([3.0])
    assert low < 3.0 < high
    low, high = limits([])
    assert low < 0.0 < high


def test_wide_intervals_do_not_press_the_values_together() -> None:
    assert limits([1.0, 2.0], [0.5, 2.5, math.nan]) == pytest.approx((0.38, 2.62))
    assert limits([1.0, 2.0], [-100.0, 100.0]) == pytest.approx((0.0 - 0.18, 3.0 + 0.18))
