"""Which strategies are worth their cost: those that no other one beats in cost and score at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transfuse.types import DataError


def pareto_front(costs: Sequence[float], scores: Sequence[float], *, higher_is_better: bool) -> tuple[int, ...]:
    """The points that no other point dominates.

    Point j dominates i where `cost_j <= cost_i` and `score_j` is at least as good as `score_i`, one of them strictly.
    Equal points do not dominate each other; a point whose cost or score is NaN neither dominates nor is on the front.

    Args:
        costs: (P,) the less the better.
        scores: (P,) of the same points.
        higher_is_better: direction of the scores.

    Returns:
        Positions of the front's points, cheapest first, equal costs in the given order.

    Raises:
        DataError: there are not as many costs as scores.

    Example:
        >>> pareto_front([1.0, 2.0, 3.0], [0.5, 0.3, 0.4], higher_is_better=False)
        (0, 1)
    """
    if len(costs) != len(scores):
        raise DataError(f"Costs and scores should be of the same points. Found {len(costs)} and {len(scores)}.")
    losses = [-score if higher_is_better else score for score in scores]
    points = [
        (cost, loss, index)
        for index, (cost, loss) in enumerate(zip(costs, losses, strict=True))
        if not (math.isnan(cost) or math.isnan(loss))
    ]
    front: list[tuple[float, float, int]] = []
    for point in sorted(points):
        cost, loss, _ = point
        # every point before it costs no more: it is on the front where it is better than all of them, or equal to one
        if not front or loss < front[-1][1] or (cost, loss) == front[-1][:2]:
            front.append(point)
    return tuple(index for _, _, index in front)
