from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfuse.report.pareto import pareto_front
from transfuse.types import DataError

COARSE = st.integers(0, 4).map(float)  # ties are common


@given(st.lists(st.tuples(COARSE, COARSE), max_size=12), st.booleans())
def test_it_is_the_definition(points: list[tuple[float, float]], upward: bool) -> None:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        better, equal = (a[1] > b[1] if upward else a[1] < b[1]), a[1] == b[1]
        return a[0] <= b[0] and (better or equal) and (a[0] < b[0] or better)

    front = pareto_front([p[0] for p in points], [p[1] for p in points], higher_is_better=upward)
    expected = {i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    assert set(front) == expected
    assert [points[index][0] for index in front] == sorted(points[index][0] for index in front)


def test_direction_decides() -> None:
    costs, scores = [1.0, 2.0, 3.0, 4.0], [0.5, 0.7, 0.6, 0.9]
    assert pareto_front(costs, scores, higher_is_better=True) == (0, 1, 3)
    assert pareto_front(costs, scores, higher_is_better=False) == (0,)


def test_equal_points_share_the_front_and_unknown_ones_are_left_out() -> None:
    assert pareto_front([1.0, 1.0, math.nan, 0.5], [0.2, 0.2, 0.1, math.nan], higher_is_better=False) == (0, 1)
    assert pareto_front([], [], higher_is_better=True) == ()


def test_lengths_must_fit() -> None:
    with pytest.raises(DataError, match="Found 1 and 2"):
        pareto_front([1.0], [1.0, 2.0], higher_is_better=True)
