"""Which values an axis shows, where one strategy that failed would press all others into one line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

_FAR = 8.0  # deviations from the median


def ordinary(values: Sequence[float]) -> tuple[bool, ...]:
    """Whether each value lies near the others: within 8 normal deviations, `1.4826 median|v - median|`, of the median.

    All are ordinary where more than a third would not be, or half of them are equal. NaN never is.

    Example:
        >>> ordinary([0.11, 0.12, 0.13, 0.12, 2.0])
        (True, True, True, True, False)
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return tuple(False for _ in values)
    center = median(known)
    deviation = 1.4826 * median(abs(value - center) for value in known)
    found = tuple(math.isfinite(value) and abs(value - center) <= _FAR * deviation for value in values)
    if deviation == 0 or 3 * sum(found) < 2 * len(known):
        return tuple(math.isfinite(value) for value in values)
    return found


def limits(values: Sequence[float], ends: Sequence[float] = ()) -> tuple[float, float]:
    """The ends of an axis that shows all `values`, and `ends` of intervals as far as they leave the values readable.

    Intervals of two seeds may be a hundred times as wide as the values' spread; the axis then ends at one spread of the
    values beyond them, and the intervals run to its edge.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    spread = high - low or abs(high) or 1.0
    reach = [value for value in ends if math.isfinite(value)]
    low = max(min([low, *reach]), low - spread)
    high = min(max([high, *reach]), high + spread)
    margin = 0.06 * (high - low or spread)
    return low - margin, high + margin
