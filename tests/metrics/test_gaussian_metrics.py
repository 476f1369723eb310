from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from transfuse.metrics import gaussian_nll, interval_coverage
from transfuse.types import HyperparameterError, PredictionError


def case(examples: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    values, noise = torch.randn(2, examples, 3, generator=generator, dtype=torch.float64)
    variances = 0.2 + torch.rand(examples, 3, generator=generator, dtype=torch.float64)
    return values, variances, values + variances.sqrt() * noise


def test_nll_equals_scipy() -> None:
    values, variances, targets = case()
    expected = -stats.norm.logpdf(targets.numpy(), values.numpy(), np.sqrt(variances.numpy())).mean()
    assert float(gaussian_nll(values, variances, targets)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_coverage_equals_scipy(level: float) -> None:
    values, variances, targets = case()
    low, high = stats.norm.interval(level, values.numpy(), np.sqrt(variances.numpy()))
    expected = ((targets.numpy() >= low) & (targets.numpy() <= high)).mean()
    assert float(interval_coverage(values, variances, targets, level=level)) == pytest.approx(expected, abs=1e-12)


def test_honest_variances_have_the_coverage_of_the_level_and_the_lowest_nll() -> None:
    values, variances, targets = case(20_000)
    assert float(interval_coverage(values, variances, targets)) == pytest.approx(0.9, abs=0.005)
    assert float(interval_coverage(values, variances / 4, targets)) == pytest.approx(
        2 * stats.norm.cdf(stats.norm.ppf(0.95) / 2) - 1, abs=0.01
    )
    honest = float(gaussian_nll(values, variances, targets))
    assert honest < min(float(gaussian_nll(values, factor * variances, targets)) for factor in (0.25, 4.0))


def test_unlabelled_targets_take_no_part() -> None:
    values, variances, targets = case()
    targets[10:] = torch.nan
    for metric in (gaussian_nll, interval_coverage):
        some = float(metric(values, variances, targets))
        assert some == pytest.approx(float(metric(values[:10], variances[:10], targets[:10])), abs=1e-12)
        assert math.isnan(float(metric(values, variances, torch.full_like(targets, torch.nan))))


def test_bad_input() -> None:
    values, variances, targets = case()
    for metric in (gaussian_nll, interval_coverage):
        with pytest.raises(PredictionError, match="Variances should be > 0. Found 0."):
            metric(values, 0 * variances, targets)
        with pytest.raises(PredictionError, match=r"should have one shape. Found \(50, 3\), \(50, 3\), \(50,\)."):
            metric(values, variances, targets[:, 0])
    with pytest.raises(HyperparameterError, match=r"`level` should be in \(0, 1\). Found `level = 90`."):
        interval_coverage(values, variances, targets, level=90)
