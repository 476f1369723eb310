"""Numbers as text: as many digits as carry information, none cut off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

UNKNOWN = "-"


def decimals(values: Sequence[float], spreads: Sequence[float]) -> int:
    """Decimals of a column: four digits of its median value and two of its median spread, at most 6.

    Example:
        >>> decimals([0.1239, 0.1428], [0.0012]), decimals([5412.3], [80.0])
        (4, 0)
    """
    return max(0, min(6, max(_digits(values, 3), _digits(spreads, 1))))


def fixed(value: float, places: int) -> str:
    """Example: `0.1239`; `-` when unknown."""
    return UNKNOWN if math.isnan(value) else f"{value:.{places}f}"


def signed(value: float, places: int) -> str:
    """Example: `+0.0039`; a value that rounds to 0 keeps its sign."""
    return UNKNOWN if math.isnan(value) else f"{value:+.{places}f}"


def spread(mean: float, sd: float, places: int) -> str:
    """Example: `0.1239 +- 0.0012`; the mean alone when the spread is unknown."""
    return fixed(mean, places) if math.isnan(sd) else f"{fixed(mean, places)} +- {fixed(sd, places)}"


def amount(value: float | None) -> str:
    """A cost in three digits or more: `0.42`, `12.3`, `109,386`, `22.7 M`."""
    if value is None or math.isnan(value):
        return UNKNOWN
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.1f} {letter}"
    places = 0 if abs(value) >= 100 or value == int(value) else _digits([value], 2)
    return f"{value:,.{min(places, 6)}f}"


def _digits(values: Sequence[float], more: int) -> int:
    """Decimals that show the leading digit of the median size and `more` digits after it."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    return more - math.floor(math.log10(median(sizes))) if sizes else 0
