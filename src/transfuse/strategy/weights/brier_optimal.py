"""The weights of the linear pool with the lowest Brier score, with a certificate.

Dimensions in tensor names: M members, E events, O outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights
from transfuse.strategy.weights.simplex import simplex_quadratic
from transfuse.types import EmptyTaskError, TaskKind


def brier_optimal_weights(log_probs_MEO: Tensor, outcomes_E: Tensor) -> tuple[Tensor, float]:
    """`argmin over the simplex of mean_e |sum_m w_m p_me - onehot(y_e)|^2`, and how far from optimal it can be.

    On the simplex the objective is `w'Qw` with `Q = RR'/E` and errors `r_me = p_me - onehot(y_e)`; solved by active
    sets, which is exact up to rounding.

    Args:
        log_probs_MEO: (M, E, O) log-probabilities; for class predictions (M, N, C).
        outcomes_E: (E,) integers in [0, O): what came true; -1 for unlabelled.

    Returns:
        (M,) float64 weights, and the Frank-Wolfe gap `2 (w'Qw - min_m (Qw)_m) >= f(w) - f(w*)`.

    Raises:
        EmptyTaskError: when no event is labelled.

    Example:
        >>> log_probs_MEO = torch.tensor([[[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]]).log()
        >>> brier_optimal_weights(log_probs_MEO, torch.tensor([0, 1]))[0]
        tensor([1., 0.], dtype=torch.float64)
    """
    known_E = outcomes_E >= 0
    if not bool(known_E.any()):
        raise EmptyTaskError("brier_optimal needs at least one labelled example. Found none.")
    p_MEO = log_probs_MEO[:, known_E].double().exp()
    errors_MF = (p_MEO - one_hot(outcomes_E[known_E], p_MEO.shape[2])).flatten(1)
    q_MM = errors_MF @ errors_MF.T / p_MEO.shape[1]
    weights_M, gap = simplex_quadratic(q_MM, torch.zeros_like(q_MM[0]))
    # simplex_quadratic minimises half of w'Qw
    return weights_M, 2 * gap


@dataclass(frozen=True, kw_only=True)
class BrierOptimal(WeightRule):
    """Weights that minimise the validation Brier score of the weighted average; multi-label: pooled over all labels."""

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "strategy/weights=least_squares_optimal"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    def weights(self, predictions: Predictions) -> Weights:
        """See `brier_optimal_weights`; `fusion/frank_wolfe_gap` is the certificate."""
        w_M, gap = brier_optimal_weights(predictions.log_outcomes_MEO, predictions.outcomes_E)
        return Weights(values_M=w_M, diagnostics={"fusion/frank_wolfe_gap": gap})
