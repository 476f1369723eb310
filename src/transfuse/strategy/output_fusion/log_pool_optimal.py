"""`output_fusion/log_pool_optimal`: the logarithmic pool whose weights minimise the validation NLL.

Dimensions in tensor names: M members, E events, O outcomes, P parts of the solver (the members and a flat one).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.geometric_mean import LogPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.simplex import Array
from transfuse.strategy.weights.simplex_newton import Local, minimize_on_simplex
from transfuse.types import EmptyTaskError, HyperparameterError, TaskKind

FLOOR = 1e-12  # smallest probability that counts, as in the metric `nll`
# of free weights: where a pool separates validation data, no finite sum is optimal, and members without any value would
# have none; the same range as that of temperatures
LARGEST_SUM, SMALLEST_SUM = 20.0, 0.05


def log_pool_weights(
    log_probs_MEO: Tensor, outcomes_E: Tensor, *, sum: Literal["free", "one"] = "free", ridge: float = 0.0
) -> tuple[Tensor, dict[str, float]]:
    """`argmin_w mean_e [log sum_o exp(sum_m w_m l_meo) - sum_m w_m l_me(y_e)] + ridge ||w - 1/M||^2`, `w >= 0`.

    With `l = log max(p, 1e-12)`. The problem is convex: log-sum-exp of a linear map, less a linear term. The sum of w
    is 1, or free in [0.05, 20]: a sum s > 1 sharpens the pool as a temperature `1 / s` would.

    Args:
        log_probs_MEO: (M, E, O) log-probabilities; for class predictions (M, N, C).
        outcomes_E: (E,) integers in [0, O): what came true; -1 for unlabelled.
        sum: `one` or `free`.
        ridge: >= 0, pulls towards the geometric mean.

    Returns:
        (M,) float64 weights; and diagnostics. `fusion/kkt_gap`: how far, in nats, the objective can be from its
        minimum; for free weights also `fusion/kkt_residual`, `max_m |min(w_m, g_m + u)|` with the gradient g and the
        bound's multiplier u, `fusion/temperature`, `1 / sum w`, and `fusion/sum_at_bound`, 1 where the sum is 0.05
        or 20.

    Raises:
        ConvergenceError: the gap stays above 1e-8.
        EmptyTaskError: no event is labelled.

    Example:
        >>> log_probs_MEO = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> log_pool_weights(log_probs_MEO, torch.tensor([0, 1]), sum="one")[0]
        tensor([1., 0.], dtype=torch.float64)

    Reference:
        Genest & Zidek 1986; Hinton 2002.
    """
    margins_MEO = _margins(log_probs_MEO, outcomes_E)
    if sum == "one":
        w_M, _, gap = _solve(margins_MEO, ridge, total=1.0)
        return torch.from_numpy(w_M), {"fusion/kkt_gap": gap}
    w_M, gradient_M, gap = _solve(margins_MEO, ridge, total=LARGEST_SUM, at_most=True)
    if w_M.sum() < SMALLEST_SUM:
        # as the problem is convex, the best sum in range is the nearest one
        w_M, gradient_M, gap = _solve(margins_MEO, ridge, total=SMALLEST_SUM)
    return torch.from_numpy(w_M), {"fusion/kkt_gap": gap, **_free_diagnostics(w_M, gradient_M)}


def _solve(margins_MEO: Array, ridge: float, *, total: float, at_most: bool = False) -> tuple[Array, Array, float]:
    """The optimum with `sum w = total` (or at most that), the gradient there, and the gap.

    `w = total v` with v on the simplex; `at_most` adds a flat member, which takes what is left: `v_0 = 1 - sum_m v_m`.
    """
    num_members = len(margins_MEO)
    flat = int(at_most)
    parts_PEO = np.concatenate([total * margins_MEO, np.zeros((flat, *margins_MEO.shape[1:]))])
    scale_P = np.append(np.full(num_members, total), np.zeros(flat))
    center_P = np.append(np.full(num_members, 1 / (num_members * total)), np.zeros(flat))
    share = min(1 / total, 1.0) if at_most else 1.0
    start_P = np.append(np.full(num_members, share / num_members), np.full(flat, 1 - share))
    function = _objective(parts_PEO, ridge, center_P, scale_P)
    v_P, gap = minimize_on_simplex(function, start_P)
    return total * v_P[:num_members], function(v_P).gradient_M[:num_members] / total, gap


def _margins(log_probs_MEO: Tensor, outcomes_E: Tensor) -> Array:
    """(M, E, O) `l_meo - l_me(y_e)` of labelled events."""
    known = outcomes_E >= 0
    if not known.any():
        raise EmptyTaskError("log_pool_optimal needs at least one labelled example. Found none.")
    floored_MEO = log_probs_MEO[:, known].detach().cpu().double().clamp(min=math.log(FLOOR))
    true_MEO = floored_MEO.gather(2, outcomes_E[known].cpu()[None, :, None].expand(len(floored_MEO), -1, 1))
    margins_MEO: Array = (floored_MEO - true_MEO).numpy()
    return margins_MEO


def _objective(margins_MEO: Array, ridge: float, center_M: Array, scale_M: Array) -> Callable[[Array], Local]:
    """`mean_e log sum_o exp(sum_m v_m d_meo) + ridge sum_m (scale_m (v_m - center_m))^2` with its derivatives."""
    num_members, num_events, num_outcomes = margins_MEO.shape
    flat_MX = margins_MEO.reshape(num_members, -1)
    pull_M = ridge * scale_M**2

    def function(v_M: Array) -> Local:
        pooled_EO = (v_M @ flat_MX).reshape(num_events, num_outcomes)
        largest_E = pooled_EO.max(axis=1, keepdims=True)
        p_EO = np.exp(pooled_EO - largest_E)
        total_E = p_EO.sum(axis=1, keepdims=True)
        p_EO /= total_E
        away_M = v_M - center_M
        weighted_MX = flat_MX * p_EO.reshape(-1)
        mean_ME = weighted_MX.reshape(margins_MEO.shape).sum(axis=2)
        # H = mean_e Cov_{o ~ p_e}(d_eo)
        covariance_MM = (weighted_MX @ flat_MX.T - mean_ME @ mean_ME.T) / num_events
        return Local(
            value=float(np.log(total_E).mean() + largest_E.mean() + pull_M @ away_M**2),
            gradient_M=mean_ME.mean(axis=1) + 2 * pull_M * away_M,
            hessian_MM=covariance_MM + np.diag(2 * pull_M),
        )

    return function


def _free_diagnostics(w_M: Array, gradient_M: Array) -> dict[str, float]:
    total = float(w_M.sum())
    at_bound = total >= LARGEST_SUM * (1 - 1e-9) or total <= SMALLEST_SUM * (1 + 1e-9)
    # at a bound g_m = -u where w_m > 0
    multiplier = -float(gradient_M @ w_M) / total if at_bound else 0.0
    return {
        "fusion/kkt_residual": float(np.abs(np.minimum(w_M, gradient_M + multiplier)).max()),
        "fusion/temperature": 1 / total,
        "fusion/sum_at_bound": float(at_bound),
    }


@dataclass(frozen=True, kw_only=True)
class LogPoolOptimal(OutputFusion):
    """`p_c` proportional to `prod_m p_mc^{w_m}`, `w_m >= 0` minimising the validation NLL.

    Multi-label: over having and lacking, the same weights for all labels.

    With a free sum it weighs members and calibrates the pool in one convex problem. The sum is in [0.05, 20]: weights
    that separate validation data have no finite optimum, and `fusion/sum_at_bound` then is 1.

    Attributes:
        sum: `free`, or `one` for a pool proper.
        ridge: >= 0, of `ridge ||w - 1/M||^2`, against overfitting to few validation examples.
    """

    sum: Literal["free", "one"] = "free"
    ridge: float = 0.0

    def __post_init__(self) -> None:
        if self.sum not in ("free", "one"):
            raise HyperparameterError(f"`sum` should be free or one. Found `sum = {self.sum}`.")
        if not 0 <= self.ridge < math.inf:
            raise HyperparameterError(f"`ridge` should be a finite number >= 0. Found `ridge = {self.ridge}`.")

    @property
    def fitted(self) -> bool:
        """The weights read labels."""
        return True

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    @property
    def instead(self) -> str:
        """Optimal weights for values."""
        return "strategy=output_fusion/weighted_average strategy/weights=least_squares_optimal"

    def combine(self, predictions: Predictions) -> LogPool:
        """See `log_pool_weights`."""
        w_M, diagnostics = log_pool_weights(
            predictions.log_outcomes_MEO, predictions.outcomes_E, sum=self.sum, ridge=self.ridge
        )
        return LogPool(predictions.kind, weights=w_M, floor=FLOOR, diagnostics=diagnostics)
