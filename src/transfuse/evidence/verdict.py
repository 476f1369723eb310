"""From an interval to a word."""

from __future__ import annotations

from typing import Literal

from transfuse.evidence.interval import Interval

Verdict = Literal["better", "worse", "inconclusive"]


def verdict(interval: Interval, adjusted_p: float, higher_is_better: bool, alpha: float = 0.05) -> Verdict:
    """`better` or `worse` only where all the evidence agrees; everything else is `inconclusive`.

    A difference whose interval spans 0, whose corrected p-value exceeds `alpha`, which rests on one seed, or whose
    spread is unknown is `inconclusive`: it may be there, but these runs do not show it.

    Args:
        interval: of strategy minus reference.
        adjusted_p: p-value after correction for the number of comparisons; NaN when unknown.
        higher_is_better: direction of the metric.
        alpha: largest p-value of a verdict, in (0, 1).

    Example:
        >>> from transfuse.evidence import Interval
        >>> found = Interval(estimate=-0.02, low=-0.03, high=-0.01, degrees=4.0, p_value=0.004)
        >>> verdict(found, 0.008, higher_is_better=False), verdict(found, 0.06, higher_is_better=False)
        ('better', 'inconclusive')
    """
    excludes_zero = interval.low > 0 or interval.high < 0
    # NaN fails both comparisons
    if interval.one_seed or not excludes_zero or not adjusted_p <= alpha:
        return "inconclusive"
    return "better" if (interval.estimate > 0) == higher_is_better else "worse"
