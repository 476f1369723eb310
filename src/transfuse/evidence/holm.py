"""Holm's step-down correction for several comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from transfuse.types import DataError


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false difference among m comparisons.

    With `p_(1) <= ... <= p_(m)`: `adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`.

    Args:
        p_values: (m,) in [0, 1]; NaN marks a comparison without evidence: it stays NaN and is not counted in m.

    Returns:
        (m,) in the order given.

    Raises:
        DataError: a p-value is outside [0, 1].

    Example:
        >>> [round(value, 4) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]

    Reference: Holm, 1979, Scandinavian Journal of Statistics 6(2), 65-70.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise DataError(f"p-values should be in [0, 1]. Found {list(p_values)}.")
    order = known[np.argsort(values[known], kind="stable")]
    scaled = np.minimum(1.0, values[order] * np.arange(len(order), 0, -1))
    adjusted = values.copy()
    adjusted[order] = np.maximum.accumulate(scaled)
    return [float(value) for value in adjusted]
