"""Strategies over all problems of a sweep: mean ranks, where there are several problems to rank over.

Dimensions: P problems, K strategies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transfuse.evidence import Ranking, friedman_nemenyi
from transfuse.report.comparison import Table

FEWEST_PROBLEMS, FEWEST_STRATEGIES = 3, 3


@dataclass(frozen=True, kw_only=True)
class OverProblems:
    """The ranking of the strategies that all problems of one kind share.

    Attributes:
        metric: that ranks them on each problem.
        problems: names of the P problems.
        strategies: labels of the K strategies, in the order of `ranking.mean_ranks_K`.
        ranking: mean ranks with Friedman's test and Nemenyi's critical difference.
    """

    metric: str
    problems: tuple[str, ...]
    strategies: tuple[str, ...]
    ranking: Ranking

    @property
    def order(self) -> list[int]:
        """Places of the strategies, best mean rank first."""
        return sorted(range(len(self.strategies)), key=lambda index: self.ranking.mean_ranks_K[index])

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the ranking says, and how far it can be trusted."""
        ranking = self.ranking
        level = f"{100 * ranking.level:g} %"
        found = [
            f"mean ranks over {ranking.problems} problems by {self.metric}, 1 is best: {', '.join(self.problems)}.",
            f"mean ranks that differ by less than {ranking.critical_difference:.2f} are not distinguishable "
            f"(Nemenyi, {level}).",
        ]
        if math.isfinite(ranking.p_value):
            found.insert(1, f"all strategies rank alike: p = {ranking.p_value:.3g} (Friedman).")
        if ranking.problems <= 10:
            found.append("with 10 problems or fewer the approximations behind both tests are rough.")
        return tuple(found)


def over_problems(tables: Sequence[Table], level: float) -> Iterator[OverProblems]:
    """Rankings of the tables with one kind of problem and one metric, where at least three share three strategies."""
    kinds = dict.fromkeys((table.kind, table.metric, table.higher_is_better) for table in tables)
    for kind, metric, upward in kinds:
        alike = [table for table in tables if (table.kind, table.metric) == (kind, metric)]
        means = [{row.strategy: row.mean for row in table.rows if math.isfinite(row.mean)} for table in alike]
        shared = [label for label in means[0] if all(label in found for found in means)]
        if len(alike) < FEWEST_PROBLEMS or len(shared) < FEWEST_STRATEGIES:
            continue
        yield OverProblems(
            metric=metric,
            problems=tuple(f"{table.data} with {table.model}" for table in alike),
            strategies=tuple(shared),
            ranking=friedman_nemenyi(
                [[found[label] for label in shared] for found in means], higher_is_better=upward, level=level
            ),
        )
