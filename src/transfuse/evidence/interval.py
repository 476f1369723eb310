"""An estimate with its two-sided t interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from transfuse.types import HyperparameterError

# spreads below this share of the largest value are rounding: 0.9 - 0.8 and 0.7 - 0.6 differ by 1e-16
ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate, its interval and the p-value of "the true value is 0".

    Attributes:
        estimate: mean over seeds.
        low: lower end; NaN when no spread can be estimated.
        high: upper end; NaN when no spread can be estimated.
        degrees: degrees of freedom of the t distribution; 0 when no spread can be estimated.
        p_value: two-sided; NaN when no spread can be estimated.
        one_seed: the spread over seeds is not part of the interval, since there is only one seed. Such an interval says
            how far the test examples bear out this one training; it cannot say what another training would give, so a
            strategy is never called better or worse by it.
    """

    estimate: float
    low: float
    high: float
    degrees: float
    p_value: float
    one_seed: bool = False

    @property
    def half_width(self) -> float:
        """The smallest effect that this comparison resolves: a smaller estimate has an interval that spans 0."""
        return (self.high - self.low) / 2


def t_interval(estimate: float, standard_error: float, degrees: float, level: float, one_seed: bool) -> Interval:
    """`estimate +- t_{(1 + level) / 2, degrees} standard_error`.

    A standard error of 0 (several seeds with one and the same difference) is a sign of a coarse metric or of repeated
    results, not of certainty: the interval is then unknown, unless the estimate is 0 too, which is no difference.
    """
    require_level(level)
    if math.isnan(standard_error):
        return Interval(
            estimate=estimate, low=math.nan, high=math.nan, degrees=0.0, p_value=math.nan, one_seed=one_seed
        )
    if standard_error == 0:
        low = 0.0 if estimate == 0 else math.nan
        p_value = 1.0 if estimate == 0 else math.nan
        return Interval(estimate=estimate, low=low, high=low, degrees=0.0, p_value=p_value, one_seed=one_seed)
    half = float(stats.t.ppf((1 + level) / 2, degrees)) * standard_error
    p_value = 2 * float(stats.t.sf(abs(estimate) / standard_error, degrees))
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        degrees=degrees,
        p_value=p_value,
        one_seed=one_seed,
    )


def require_level(level: float) -> None:
    """Raises `HyperparameterError` unless `level` is in (0, 1)."""
    if not 0 < level < 1:
        raise HyperparameterError(f"`level` should be in (0, 1). Found `level = {level}`.")
