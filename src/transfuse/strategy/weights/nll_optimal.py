"""The weights of the linear pool with the lowest negative log-likelihood, with a certificate.

Dimensions in tensor names: M members, E events, O outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.metrics.classification import NLL_FLOOR
from transfuse.strategy.predictions import Predictions, true_log_probs
from transfuse.strategy.weights.base import WeightRule, Weights, require_number
from transfuse.strategy.weights.simplex import optimal_mixture
from transfuse.types import EmptyTaskError, TaskKind


def nll_optimal_weights(
    log_probs_MEO: Tensor, outcomes_E: Tensor, *, tolerance: float = 1e-8, max_iterations: int = 10_000
) -> tuple[Tensor, float]:
    """`argmin over the simplex of -mean_e log sum_m w_m max(p_m(y_e), 1e-12)`, and how far from optimal it can be.

    Likelihoods are floored as in the metric `nll`, so that the objective at a single member is that member's NLL, and
    the optimum is never above the best of them (beyond `tolerance`). The problem is convex. With members that repeat
    each other the weights are not unique; the objective is.

    Args:
        log_probs_MEO: (M, E, O) log-probabilities; for class predictions (M, N, C).
        outcomes_E: (E,) integers in [0, O): what came true; -1 for unlabelled.
        tolerance: largest accepted gap, in nats, > 0.
        max_iterations: of the solver, >= 1.

    Returns:
        (M,) float64 weights, exactly 0 for members without a part; and the gap `max_m s_m - 1 >= f(w) - f(w*)`, with
        `s_m = mean_e p_me / q_e` of floored likelihoods.

    Raises:
        ConvergenceError: when the gap stays above `tolerance`.
        EmptyTaskError: when no event is labelled.

    Example:
        >>> log_probs_MEO = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> nll_optimal_weights(log_probs_MEO, torch.tensor([0, 1]))
        (tensor([1., 0.], dtype=torch.float64), 0.0)

    Reference:
        Yao, Vehtari, Simpson & Gelman 2018 (1704.02030), stacking of predictive distributions; certificate: Cover 1984.
    """
    log_likelihoods_ME = true_log_probs(log_probs_MEO, outcomes_E)
    if log_likelihoods_ME.shape[1] == 0:
        raise EmptyTaskError("nll_optimal needs at least one labelled example. Found none.")
    floored_ME = log_likelihoods_ME.detach().double().clamp(min=math.log(NLL_FLOOR))
    w_M, gap = optimal_mixture(floored_ME, tolerance=tolerance, max_iterations=max_iterations)
    assert _objective(w_M, floored_ME) <= float(-floored_ME.mean(dim=1).max()) + tolerance + 1e-12
    return w_M, gap


def _objective(w_M: Tensor, log_likelihoods_ME: Tensor) -> float:
    """`-mean_e log sum_m w_m p_me`."""
    return -float((log_likelihoods_ME + w_M.log()[:, None]).logsumexp(dim=0).mean())


@dataclass(frozen=True, kw_only=True)
class NllOptimal(WeightRule):
    """Weights that minimise the validation NLL of the weighted average; multi-label: pooled over all labels.

    Attributes:
        tolerance: largest accepted optimality gap, in nats, > 0.
        max_iterations: of the solver, >= 1.
        shrink: share in [0, 1) given back to uniform weights, `w <- (1 - shrink) w + shrink / M`, against overfitting
            to few validation examples.
    """

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "strategy/weights=least_squares_optimal"

    tolerance: float = 1e-8
    max_iterations: int = 10_000
    shrink: float = 0.0

    def __post_init__(self) -> None:
        require_number("tolerance", self.tolerance, "> 0", lambda value: value > 0)
        require_number("max_iterations", self.max_iterations, ">= 1", lambda value: value >= 1)
        require_number("shrink", self.shrink, "in [0, 1)", lambda value: 0 <= value < 1)

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    def weights(self, predictions: Predictions) -> Weights:
        """See `nll_optimal_weights`; `fusion/kkt_gap` is the certificate before shrinking."""
        w_M, gap = nll_optimal_weights(
            predictions.log_outcomes_MEO,
            predictions.outcomes_E,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )
        return Weights(values_M=(1 - self.shrink) * w_M + self.shrink / len(w_M), diagnostics={"fusion/kkt_gap": gap})
