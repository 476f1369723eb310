"""Mean ranks of strategies over several problems, with the tests that go with them.

Dimensions: P problems, K strategies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from transfuse.types import DataError, HyperparameterError, NonFiniteError


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Strategies compared over problems.

    Attributes:
        mean_ranks_K: 1 is best, ties share their mean rank.
        statistic: Friedman's chi-square; NaN where all problems rank all strategies alike (all tied).
        p_value: of "all strategies rank alike" (Friedman); NaN where it is undefined.
        critical_difference: two mean ranks that differ by less are not distinguishable (Nemenyi).
        problems: P.
        level: of the critical difference.
    """

    mean_ranks_K: tuple[float, ...]
    statistic: float
    p_value: float
    critical_difference: float
    problems: int
    level: float

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Maximal sets of strategies, best first, whose mean ranks lie within one critical difference."""
        order = sorted(range(len(self.mean_ranks_K)), key=lambda index: self.mean_ranks_K[index])
        found: list[tuple[int, ...]] = []
        for first, start in enumerate(order):
            reach = self.mean_ranks_K[start] + self.critical_difference
            group = tuple(index for index in order[first:] if self.mean_ranks_K[index] <= reach)
            if len(group) > 1 and not (found and set(group) <= set(found[-1])):
                found.append(group)
        return tuple(found)


def friedman_nemenyi(scores_PK: ArrayLike, *, higher_is_better: bool, level: float = 0.95) -> Ranking:
    """Friedman's test over problems, and Nemenyi's critical difference of mean ranks.

    `CD = q_{level, K} sqrt(K (K + 1) / (6 P))`, q the studentized range quantile for infinite degrees of freedom
    divided by sqrt 2. The chi-square approximation of Friedman's statistic is rough for P <= 10 or K <= 5.

    Args:
        scores_PK: (P, K) one score a problem and strategy, P >= 2, K >= 3.
        higher_is_better: direction of the scores.
        level: in (0, 1).

    Raises:
        DataError: fewer than two problems or three strategies.
        NonFiniteError: a score is NaN or infinite.

    Example:
        >>> ranking = friedman_nemenyi([[1, 2, 3], [1, 3, 2], [1, 2, 3]], higher_is_better=False)
        >>> [round(rank, 2) for rank in ranking.mean_ranks_K], round(ranking.critical_difference, 3)
        ([1.0, 2.33, 2.67], 1.913)

    Reference:
        Demsar 2006, JMLR 7, 1-30, section 3.2.
    """
    scores = np.asarray(scores_PK, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < 3:
        raise DataError(
            f"Mean ranks need at least 2 problems and 3 strategies. Found scores of the shape {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise NonFiniteError("Scores to rank should be finite. Found NaN or infinity.")
    if not 0 < level < 1:
        raise HyperparameterError(f"`level` should be in (0, 1). Found `level = {level}`.")
    num_problems, num_strategies = scores.shape
    ranks_PK: NDArray[np.float64] = stats.rankdata(-scores if higher_is_better else scores, axis=1)
    all_tied = bool((ranks_PK == ranks_PK[:, :1]).all())
    statistic, p_value = (math.nan, math.nan) if all_tied else stats.friedmanchisquare(*ranks_PK.T)
    q = stats.studentized_range.ppf(level, num_strategies, np.inf) / math.sqrt(2)
    return Ranking(
        mean_ranks_K=tuple(float(rank) for rank in ranks_PK.mean(axis=0)),
        statistic=float(statistic),
        p_value=float(p_value),
        critical_difference=float(q * math.sqrt(num_strategies * (num_strategies + 1) / (6 * num_problems))),
        problems=num_problems,
        level=level,
    )
