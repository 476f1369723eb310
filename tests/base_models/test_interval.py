from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import kstest

from transfuse.base_models.interval import Interval, read_interval
from transfuse.types import HyperparameterError


def draws(interval: Interval, count: int, *, whole: bool = False) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    return [interval.draw(generator, whole=whole) for _ in range(count)]


def test_numbers_are_uniform_and_log_uniform() -> None:
    plain = draws(Interval(low=2.0, high=6.0), 500)
    assert kstest(plain, "uniform", args=(2.0, 4.0)).pvalue > 0.01
    logs = [math.log10(value) for value in draws(Interval(low=1e-4, high=1e-2, log=True), 500)]
    assert kstest(logs, "uniform", args=(-4.0, 2.0)).pvalue > 0.01
    assert kstest([10**value for value in logs], "uniform", args=(1e-4, 1e-2)).pvalue < 1e-6


def test_whole_numbers_and_single_points() -> None:
    values = draws(Interval(low=16, high=64, log=True), 50, whole=True)
    assert all(isinstance(value, int) and 16 <= value <= 64 for value in values)
    assert draws(Interval(low=0.3, high=0.3, log=True), 3) == [0.3] * 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"low": 2, "high": 1}, "`low` should be at most `high` (1). Found `low = 2`."),
        ({"low": 0, "high": 1, "log": True}, "`low` should be > 0 with log. Found `low = 0`."),
        ({"low": 0, "hihg": 1}, "`hihg` is no key of an interval. Did you mean high?"),
        ({"low": "a", "high": 1}, "`low` should be a number. Found `low = 'a'`."),
        ({"low": 1}, "`high` is missing."),
        ({"low": math.nan, "high": 1}, "`low` should be at most `high` (1). Found `low = nan`."),
        ([1, 2], "`low` and `high` should be given as a mapping. Found [1, 2]."),
    ],
)
def test_what_is_no_interval(spec: Any, message: str) -> None:
    with pytest.raises(HyperparameterError) as error:
        read_interval(spec)
    assert str(error.value) == message
