"""The paired difference of two strategies over seeds and test examples.

Dimensions: S seeds, N test examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transfuse.evidence.interval import ROUNDING, Interval, t_interval
from transfuse.types import DataError, NonFiniteError


def paired_difference(
    differences_by_seed: Sequence[float] | NDArray[np.float64],
    example_differences: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Interval of a strategy's mean difference to a reference, from both sources of chance: seeds and examples.

    `se^2 = var_S(d_s) / S + var_N(mean_s d_sn) / N`, the second term only where the seeds share a test set, with
    Satterthwaite's degrees of freedom `se^4 / (v_S^2 / (S - 1) + v_N^2 / (N - 1))`, `v` the two terms.
    Without examples this is the paired t test over seeds.

    Args:
        differences_by_seed: (S,) metric of the strategy minus metric of the reference, seed by seed.
        example_differences: (S, N) the same of each test example's share in the metric, when all seeds have the same N
            test examples and the metric is a mean over examples; None otherwise.
        level: of the interval, in (0, 1).

    Returns:
        The interval. With one seed it rests on the examples alone (or is unknown) and is flagged `one_seed`.

    Raises:
        DataError: no seed, or shapes that do not fit.
        NonFiniteError: a difference is NaN or infinite.

    Example:
        >>> interval = paired_difference([0.01, 0.03, 0.02])
        >>> round(interval.low, 4), round(interval.high, 4), round(interval.p_value, 4)
        (-0.0048, 0.0448, 0.0742)

    Reference: Satterthwaite, 1946, Biometrics Bulletin 2(6), 110-114.
    """
    differences_S = _finite(np.asarray(differences_by_seed, dtype=np.float64))
    if differences_S.ndim != 1 or len(differences_S) == 0:
        raise DataError(f"`differences_by_seed` should be (S,) with S >= 1. Found shape {differences_S.shape}.")
    terms = [_variance_of_mean(differences_S)]
    if example_differences is not None:
        differences_SN = _finite(np.asarray(example_differences, dtype=np.float64))
        if differences_SN.ndim != 2 or len(differences_SN) != len(differences_S):
            raise DataError(
                f"`example_differences` should be (S, N) with S = {len(differences_S)}. "
                f"Found shape {differences_SN.shape}."
            )
        terms.append(_variance_of_mean(differences_SN.mean(axis=0)))
    known = [(variance, degrees) for variance, degrees in terms if degrees > 0]
    # se^2 = var_S(d_s) / S + var_N(mean_s d_sn) / N
    squared = sum(variance for variance, _ in known) if known else math.nan
    # degrees = se^4 / sum_v v^2 / degrees_v
    weights = sum(variance**2 / degrees for variance, degrees in known)
    degrees = squared**2 / weights if weights > 0 else 0.0
    estimate = float(differences_S.mean())
    return t_interval(estimate, math.sqrt(squared), degrees, level, one_seed=len(differences_S) == 1)


def mean_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """The t interval of a mean over seeds: `mean +- t_{(1 + level) / 2, S - 1} sd / sqrt(S)`.

    Args:
        values: (S,) one value a seed.
        level: of the interval, in (0, 1).

    Example:
        >>> interval = mean_interval([1.0, 2.0, 3.0])
        >>> round(interval.low, 3), round(interval.high, 3)
        (-0.484, 4.484)
    """
    return paired_difference(values, None, level)


def _variance_of_mean(values: NDArray[np.float64]) -> tuple[float, int]:
    """Estimated variance of the mean of (n,) values and its degrees of freedom, n - 1; rounding counts as no spread."""
    if len(values) < 2:
        return math.nan, 0
    variance = float(values.var(ddof=1))
    if math.sqrt(variance) <= ROUNDING * max(1.0, float(np.abs(values).max())):
        variance = 0.0
    return variance / len(values), len(values) - 1


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise NonFiniteError(f"Differences should be finite. Found {int((~np.isfinite(values)).sum())} that are not.")
    return values
