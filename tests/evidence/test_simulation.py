"""Verdicts on simulated sweeps over stored test losses of 40 real networks: digits, 64-128-128-10, other seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from transfuse.evidence.simulation import SimulatedSweeps
from transfuse.types import DataError

LOSSES_MN = np.load(Path(__file__).parents[1] / "golden" / "evidence" / "digits_nll.npz")["losses_MN"].astype(float)


def sweeps(*, seeds: int, strategies: int, shared_test: bool) -> SimulatedSweeps:
    return SimulatedSweeps(losses_MN=LOSSES_MN, seeds=seeds, strategies=strategies, shared_test=shared_test)


@pytest.mark.parametrize("shared_test", [False, True])
@pytest.mark.parametrize(("seeds", "strategies"), [(3, 6), (5, 6), (5, 2)])
def test_identical_strategies_are_told_apart_at_the_nominal_rate_at_most(
    seeds: int, strategies: int, shared_test: bool
) -> None:
    kind = sweeps(seeds=seeds, strategies=strategies, shared_test=shared_test)
    rate = kind.false_difference_rate(400, np.random.default_rng(0))
    assert rate <= 0.07
    # a rule that never declares anything would pass the bound above, and be worthless
    assert rate >= 0.01


@pytest.mark.parametrize("shift", [0.005, 0.01, 0.015])
def test_power_with_separate_test_sets_is_that_of_the_paired_t_test(shift: float) -> None:
    seeds = 5
    kind = sweeps(seeds=seeds, strategies=2, shared_test=False)
    rng = np.random.default_rng(1)
    sd = np.std([kind.differences(rng)[0].mean(axis=1) for _ in range(1000)])
    # P(T > t_{0.975}) for a noncentral t with S - 1 degrees of freedom and noncentrality delta sqrt(S) / sd
    expected = stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift * np.sqrt(seeds) / sd)
    assert kind.power(shift, 1000, np.random.default_rng(2)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("shift", [0.008, 0.014])
def test_power_with_a_shared_test_set_is_that_of_normal_sweeps(shift: float) -> None:
    seeds, num_examples = 5, LOSSES_MN.shape[1]
    kind = sweeps(seeds=seeds, strategies=2, shared_test=True)
    rng = np.random.default_rng(3)
    drawn_RSN = np.stack([kind.differences(rng)[0] for _ in range(600)])
    covariance_SS = np.cov(drawn_RSN.mean(axis=2).T)
    common = covariance_SS[~np.eye(seeds, dtype=bool)].mean()  # what test examples move all seeds by
    own = covariance_SS.diagonal().mean() - common
    v_examples = drawn_RSN.mean(axis=1).var(axis=1, ddof=1).mean() / num_examples
    # normal sweeps with these two variances, judged by Satterthwaite's t
    d_RS = shift + rng.normal(0, np.sqrt(own), (20_000, seeds)) + rng.normal(0, np.sqrt(common), (20_000, 1))
    v_seeds_R = d_RS.var(axis=1, ddof=1) / seeds
    squared_R = v_seeds_R + v_examples
    degrees_R = squared_R**2 / (v_seeds_R**2 / (seeds - 1) + v_examples**2 / (num_examples - 1))
    expected = np.mean(d_RS.mean(axis=1) / np.sqrt(squared_R) > stats.t.ppf(0.975, degrees_R))
    assert kind.power(shift, 1000, np.random.default_rng(4)) == pytest.approx(expected, abs=0.05)


def test_too_few_networks_are_told() -> None:
    with pytest.raises(DataError, match=r"9 strategies x 5 seeds need 45 networks\. Found 40"):
        sweeps(seeds=5, strategies=9, shared_test=True)
