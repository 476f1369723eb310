"""`weight_fusion/weight_sweep`: the best point on the paths and triangles between models, and the loss surface there.

Dimensions in tensor names: K models, P points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

from transfuse.metrics import higher_is_better
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import predictions
from transfuse.strategy.weight_fusion.judging import best, selection_score
from transfuse.strategy.weight_fusion.network_fusion import Choice, NetworkFusion
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import HyperparameterError

Point = tuple[int, ...]


def grid(num_models: int, points: int, corners: int) -> list[Point]:
    """Convex combinations of at most `corners` models, in steps of 1 / (points - 1).

    Args:
        num_models: K >= 1.
        points: on a path, its ends among them, >= 2.
        corners: 2 for paths, 3 for triangles too.

    Returns:
        Numerators of the coefficients, (K,) each with the sum points - 1, without duplicates: first the models alone,
        then paths pair by pair, then triangles.

    Example:
        >>> grid(2, points=3, corners=2)
        [(2, 0), (0, 2), (1, 1)]
    """
    whole = points - 1
    found: list[Point] = []
    for size in range(1, min(corners, num_models) + 1):
        for chosen in combinations(range(num_models), size):
            for cuts in combinations(range(1, whole), size - 1):
                parts = [high - low for low, high in zip((0, *cuts), (*cuts, whole), strict=True)]
                place = dict(zip(chosen, reversed(parts), strict=True))
                found.append(tuple(place.get(index, 0) for index in range(num_models)))
    return found


@dataclass(frozen=True, kw_only=True)
class SoupPath(NetworkFusion):
    """x = sum_i a_i x_i with the a of a grid on paths and triangles that is best on validation data.

    The grid holds the models alone, so that the point is never worse on validation data than the best of them. Each
    point is judged once, BatchNorm's statistics measured anew; the record holds the surface.
    Each path has P - 2 inner points, each triangle (P - 2) (P - 3) / 2.

    Attributes:
        points: P on a path, its ends among them, >= 3.
        corners: 2 for paths alone, 3 for triangles too.
        members: how many models are swept, the best by validation score, >= 2; None for all.

    Reference:
        Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", 1912.05671 (paths);
        Wortsman et al. 2022, 2203.05482, fig. 2 (planes through three models).
    """

    least: ClassVar[int] = 2

    points: int = 11
    corners: int = 3
    members: int | None = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 3:
            raise HyperparameterError(f"`points` should be >= 3. Found `points = {self.points}`.")
        if self.corners not in (2, 3):
            raise HyperparameterError(f"`corners` should be 2 or 3. Found `corners = {self.corners}`.")
        if self.members is not None and self.members < 2:
            raise HyperparameterError(f"`members` should be >= 2 or null. Found `members = {self.members}`.")

    def select(self, context: Context, parts: Parts) -> Choice:
        """Judges the models, then all points between those that are swept."""
        metric, num_models, whole = context.selection_metric, len(parts.members), self.points - 1
        sign = -1.0 if higher_is_better(metric) else 1.0
        models = [tuple(whole * (index == other) for other in range(num_models)) for index in range(num_models)]
        outputs = {point: self._judged(context, parts, point) for point in models}
        scores = {point: selection_score(context, outputs[point], metric) for point in models}
        ranked = sorted(range(num_models), key=lambda index: sign * scores[models[index]])
        swept = sorted(ranked[: self.members])
        for inner in grid(len(swept), self.points, self.corners):
            place = dict(zip(swept, inner, strict=True))
            point = tuple(place.get(index, 0) for index in range(num_models))
            if point not in outputs:
                outputs[point] = self._judged(context, parts, point)
                scores[point] = selection_score(context, outputs[point], metric)
        candidates = tuple(outputs.values())
        index = best(context, candidates, metric)
        chosen = list(outputs)[index]
        weights, divisor = _reduced(chosen)
        alone = "no mixture beats the best member" if chosen in models else None
        return Choice(
            weights_K=weights,
            divisor=divisor,
            candidates=candidates,
            index=index,
            metric=metric,
            looks=len(candidates),
            diagnostics={
                "metric": metric,
                "swept": swept,
                "surface": [
                    {"weights": [part / whole for part in point], metric: value} for point, value in scores.items()
                ],
                "verdict": alone,
            },
        )

    def _judged(self, context: Context, parts: Parts, point: Point) -> dict[str, Any]:
        network, _ = self.mixture(context, parts, *_reduced(point))
        return predictions(context, network)


def _reduced(point: Point) -> tuple[tuple[float, ...], float]:
    """The smallest whole weights of the same point, and their sum: a model alone has the weight 1."""
    common = math.gcd(*point)
    return tuple(float(part // common) for part in point), float(sum(point) // common)
