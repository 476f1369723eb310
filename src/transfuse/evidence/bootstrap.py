"""The hierarchical bootstrap: an interval to draw, not to decide by.

Dimensions: S seeds, N test examples, B resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from transfuse.evidence.interval import require_level
from transfuse.types import DataError, HyperparameterError, NonFiniteError


def hierarchical_bootstrap(
    values_SN: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile interval of the mean over seeds and examples, resampling seeds and, jointly for all, examples.

    Each resample draws S seeds and N examples with replacement and averages. Over the 3 to 5 seeds of a usual sweep
    it is far too narrow (about 12 % false differences at a nominal 5 %), so it serves figures alone; verdicts rest on
    `paired_difference`.

    Args:
        values_SN: (S, N) per-example values of each seed on one shared test set; (S, 1) where only seeds are known.
        rng: source of chance.
        level: of the interval, in (0, 1).
        resamples: B >= 1.

    Returns:
        Lower and upper end.

    Raises:
        DataError: no value, or not (S, N).
        NonFiniteError: a value is NaN or infinite.

    Example:
        >>> low, high = hierarchical_bootstrap([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], rng=np.random.default_rng(0))
        >>> bool(1.0 <= low < 2.5 < high <= 4.0)
        True

    Reference:
        Davison & Hinkley 1997, section 3.8.
    """
    values = np.asarray(values_SN, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"`values_SN` should be (S, N) with at least one value. Found the shape {values.shape}.")
    if not np.isfinite(values).all():
        raise NonFiniteError("`values_SN` should be finite. Found NaN or infinity.")
    require_level(level)
    if resamples < 1:
        raise HyperparameterError(f"`resamples` should be >= 1. Found `resamples = {resamples}`.")
    num_seeds, num_examples = values.shape
    # how often each seed and each example is drawn: the mean of a resample is then two products
    seeds_BS = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=resamples) / num_seeds
    examples_BN = rng.multinomial(num_examples, np.full(num_examples, 1 / num_examples), size=resamples) / num_examples
    means_B = np.einsum("bs,sn,bn->b", seeds_BS, values, examples_BN, optimize=True)
    low, high = np.quantile(means_B, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
