from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from transfuse.evidence import hierarchical_bootstrap
from transfuse.types import DataError, HyperparameterError, NonFiniteError


def test_with_one_seed_it_is_the_percentile_bootstrap_over_examples() -> None:
    values_N = np.random.default_rng(0).exponential(size=200)
    found = hierarchical_bootstrap(values_N[None], rng=np.random.default_rng(1), resamples=20_000)
    reference = stats.bootstrap(
        (values_N,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(found, reference, rtol=0.01)


def test_both_sources_widen_it() -> None:
    rng = np.random.default_rng(0)
    seeds_S1, examples_1N = rng.normal(size=(8, 1)), rng.normal(size=(1, 300)) * 6

    def width(values_SN: np.ndarray) -> float:
        low, high = hierarchical_bootstrap(values_SN, rng=np.random.default_rng(1))
        return high - low

    both = width(seeds_S1 + examples_1N)
    assert both > width(seeds_S1 + 0 * examples_1N)
    assert both > width(0 * seeds_S1 + examples_1N)
    # independent sources add in squares: normal widths 2 * 1.96 * sqrt(sd_S^2 / S + sd_N^2 / N)
    expected = 2 * 1.96 * np.sqrt(seeds_S1.var() / 8 + examples_1N.var() / 300)
    assert both == pytest.approx(expected, rel=0.1)


def test_it_repeats() -> None:
    values_SN = np.random.default_rng(0).normal(size=(3, 20))
    found = [hierarchical_bootstrap(values_SN, rng=np.random.default_rng(5)) for _ in range(2)]
    assert found[0] == found[1]


def test_bad_input_is_told() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"should be \(S, N\)"):
        hierarchical_bootstrap([1.0, 2.0], rng=rng)
    with pytest.raises(NonFiniteError):
        hierarchical_bootstrap([[np.nan]], rng=rng)
    with pytest.raises(HyperparameterError, match="`resamples` should be >= 1"):
        hierarchical_bootstrap([[1.0]], rng=rng, resamples=0)
    with pytest.raises(HyperparameterError, match="`level`"):
        hierarchical_bootstrap([[1.0]], rng=rng, level=1.0)
