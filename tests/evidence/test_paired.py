from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from transfuse.evidence import mean_interval, paired_difference
from transfuse.types import DataError, HyperparameterError, NonFiniteError


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_seeds_alone_are_the_paired_t_test(num_seeds: int, level: float) -> None:
    rng = np.random.default_rng(num_seeds)
    mine, reference = rng.normal(0.3, 0.1, num_seeds), rng.normal(0.2, 0.1, num_seeds)
    expected = stats.ttest_rel(mine, reference)
    ends = expected.confidence_interval(level)
    found = paired_difference(mine - reference, level=level)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
    assert found.degrees == pytest.approx(num_seeds - 1)
    assert not found.one_seed


def test_both_sources_add_up_with_satterthwaites_degrees() -> None:
    differences_SN = np.random.default_rng(1).normal(0.1, 1.0, (4, 30))
    differences_S = differences_SN.mean(axis=1)
    over_seeds = np.var(differences_S, ddof=1) / 4
    over_examples = np.var(differences_SN.mean(axis=0), ddof=1) / 30
    squared = over_seeds + over_examples
    degrees = squared**2 / (over_seeds**2 / 3 + over_examples**2 / 29)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(squared)
    found = paired_difference(differences_S, differences_SN)
    assert found.degrees == pytest.approx(degrees)
    assert (found.low, found.high) == pytest.approx((differences_S.mean() - half, differences_S.mean() + half))
    assert found.half_width == pytest.approx(half)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(differences_S.mean()) / math.sqrt(squared), degrees))


def test_examples_that_agree_add_nothing() -> None:
    differences_S = np.array([0.1, 0.2, 0.4])
    same = paired_difference(differences_S, np.repeat(differences_S[:, None], 50, axis=1))
    assert same == paired_difference(differences_S)


def test_one_seed_rests_on_the_examples_and_says_so() -> None:
    differences_N = np.random.default_rng(2).normal(0.5, 1.0, 40)
    found = paired_difference([differences_N.mean()], differences_N[None])
    expected = stats.ttest_1samp(differences_N, 0.0)
    assert found.one_seed
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low)


def test_one_seed_without_examples_is_unknown() -> None:
    found = paired_difference([0.3])
    assert found.one_seed
    assert found.estimate == 0.3
    assert all(math.isnan(value) for value in (found.low, found.high, found.p_value))


def test_equal_differences_are_no_certainty() -> None:
    # 0.9 - 0.8, 0.8 - 0.7 and 0.7 - 0.6 differ by rounding alone
    found = paired_difference([0.9 - 0.8, 0.8 - 0.7, 0.7 - 0.6])
    assert math.isnan(found.low)
    assert math.isnan(found.p_value)


def test_no_difference_at_all_is_zero() -> None:
    found = paired_difference([0.0, 0.0, 0.0], np.zeros((3, 10)))
    assert (found.estimate, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_small_units_are_not_rounding() -> None:
    small = paired_difference(np.array([1.0, 2.0, 4.0]) * 1e-6)
    assert small.p_value == pytest.approx(paired_difference([1.0, 2.0, 4.0]).p_value)


@pytest.mark.parametrize(
    ("num_seeds", "num_examples", "by_seed", "by_example", "noise"),
    [(3, 200, 0.05, 0.5, 0.3), (5, 200, 0.05, 0.5, 0.3), (5, 200, 0.02, 0.5, 0.2)],
)
def test_coverage_with_both_sources(
    num_seeds: int, num_examples: int, by_seed: float, by_example: float, noise: float
) -> None:
    rng = np.random.default_rng(0)
    truth, repeats, covered = 0.1, 4000, 0
    for _ in range(repeats):
        differences_SN = truth + rng.normal(0, by_seed, (num_seeds, 1)) + rng.normal(0, by_example, num_examples)
        differences_SN = differences_SN + rng.normal(0, noise, (num_seeds, num_examples))
        found = paired_difference(differences_SN.mean(axis=1), differences_SN)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / repeats <= 0.97


def test_seeds_alone_miss_the_chance_of_a_shared_test_set() -> None:
    # why the examples count: with one test set for all seeds, a t test over seeds covers far too seldom
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        differences_SN = rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.5, 200) + rng.normal(0, 0.2, (5, 200))
        found = paired_difference(differences_SN.mean(axis=1))
        covered += found.low <= 0 <= found.high
    assert covered / 500 < 0.75


def test_mean_interval_is_scipys() -> None:
    values = [0.91, 0.94, 0.90, 0.95]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_bad_input() -> None:
    with pytest.raises(DataError, match=r"S >= 1"):
        paired_difference([])
    with pytest.raises(DataError, match=r"\(S, N\) with S = 2.*\(3, 4\)"):
        paired_difference([0.1, 0.2], np.zeros((3, 4)))
    with pytest.raises(NonFiniteError, match="Found 1 that are not"):
        paired_difference([0.1, math.nan])
    with pytest.raises(HyperparameterError, match=r"`level` should be in \(0, 1\). Found `level = 95`"):
        paired_difference([0.1, 0.2], level=95)
