from __future__ import annotations

import math
from dataclasses import replace

import pytest

from transfuse.evidence import Interval, verdict

ABOVE = Interval(estimate=0.2, low=0.1, high=0.3, degrees=4.0, p_value=0.01)
BELOW = replace(ABOVE, estimate=-0.2, low=-0.3, high=-0.1)


@pytest.mark.parametrize(
    ("interval", "higher_is_better", "expected"),
    [(ABOVE, True, "better"), (ABOVE, False, "worse"), (BELOW, True, "worse"), (BELOW, False, "better")],
)
def test_direction(interval: Interval, higher_is_better: bool, expected: str) -> None:
    assert verdict(interval, 0.05, higher_is_better) == expected


@pytest.mark.parametrize(
    ("interval", "adjusted_p"),
    [
        (replace(ABOVE, low=-0.01), 0.01),
        (replace(ABOVE, low=0.0), 0.01),
        (ABOVE, 0.0501),
        (ABOVE, math.nan),
        (replace(ABOVE, low=math.nan, high=math.nan), math.nan),
        (replace(ABOVE, one_seed=True), 0.001),
    ],
    ids=["spans 0", "touches 0", "corrected p", "no p", "no spread", "one seed"],
)
def test_anything_less_is_inconclusive(interval: Interval, adjusted_p: float) -> None:
    assert verdict(interval, adjusted_p, True) == "inconclusive"
    assert verdict(interval, adjusted_p, False) == "inconclusive"


def test_alpha() -> None:
    assert verdict(ABOVE, 0.08, True, alpha=0.1) == "better"
