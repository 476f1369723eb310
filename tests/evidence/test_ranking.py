from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from transfuse.evidence import friedman_nemenyi
from transfuse.types import DataError, HyperparameterError, NonFiniteError

BETTER_K = np.array([0.0, 0.3, 0.0, 0.6])
SCORES_PK = np.random.default_rng(0).normal(size=(14, 4)).round(1) + BETTER_K  # some are tied


def test_friedman_over_mean_ranks() -> None:
    ranking = friedman_nemenyi(SCORES_PK, higher_is_better=True)
    expected = pd.DataFrame(SCORES_PK).rank(axis=1, ascending=False).mean()
    np.testing.assert_allclose(ranking.mean_ranks_K, expected, rtol=1e-12)
    by_scores = stats.friedmanchisquare(*SCORES_PK.T)
    assert ranking.p_value == pytest.approx(by_scores.pvalue)
    assert ranking.statistic == pytest.approx(by_scores.statistic)


@pytest.mark.parametrize(("strategies", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_critical_differences_follow_the_published_table(strategies: int, q: float) -> None:
    """q at 0.05 of Demsar (2006), table 5 (a)."""
    scores_PK = np.random.default_rng(0).normal(size=(14, strategies))
    found = friedman_nemenyi(scores_PK, higher_is_better=True).critical_difference
    assert found == pytest.approx(q * math.sqrt(strategies * (strategies + 1) / (6 * 14)), rel=4e-4)


def test_direction_turns_ranks_around() -> None:
    up = friedman_nemenyi(SCORES_PK, higher_is_better=True).mean_ranks_K
    down = friedman_nemenyi(SCORES_PK, higher_is_better=False).mean_ranks_K
    np.testing.assert_allclose(np.add(up, down), 5.0)


def test_groups_are_those_within_a_critical_difference() -> None:
    scores_PK = [[1.0, 2.0, 3.0, 4.0, 5.0]] * 12
    ranking = friedman_nemenyi(scores_PK, higher_is_better=False)
    assert 1 < ranking.critical_difference < 2
    assert ranking.groups == ((0, 1), (1, 2), (2, 3), (3, 4))
    far = friedman_nemenyi([[1.0, 2.0, 3.0]] * 100, higher_is_better=False)
    assert far.critical_difference < 1
    assert far.groups == ()


def test_problems_that_rank_all_alike_say_nothing() -> None:
    ranking = friedman_nemenyi([[1.0, 1.0, 1.0]] * 4, higher_is_better=True)
    assert ranking.mean_ranks_K == (2.0, 2.0, 2.0)
    assert math.isnan(ranking.p_value)
    assert ranking.groups == ((0, 1, 2),)


def test_bad_input_is_told() -> None:
    with pytest.raises(DataError, match="at least 2 problems and 3 strategies"):
        friedman_nemenyi([[1.0, 2.0]] * 5, higher_is_better=True)
    with pytest.raises(NonFiniteError):
        friedman_nemenyi([[1.0, 2.0, np.nan]] * 5, higher_is_better=True)
    with pytest.raises(HyperparameterError, match="`level`"):
        friedman_nemenyi([[1.0, 2.0, 3.0]] * 5, higher_is_better=True, level=0.0)
