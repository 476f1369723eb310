"""The weights of the average with the lowest squared error, with a certificate.

Dimensions in tensor names: M members, E events (examples times targets).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights
from transfuse.strategy.weights.simplex import simplex_quadratic
from transfuse.types import EmptyTaskError, TaskKind


def least_squares_weights(values_ME: Tensor, targets_E: Tensor) -> tuple[Tensor, float]:
    """`argmin over the simplex of mean_e (sum_m w_m f_me - y_e)^2`, and how far from optimal it can be.

    On the simplex the objective is `w'Qw` with `Q = RR'/E` and residuals `r_me = f_me - y_e`; solved by active sets,
    which is exact up to rounding.

    Args:
        values_ME: (M, E) predictions of the members.
        targets_E: (E,) the truth in the same unit.

    Returns:
        (M,) float64 weights, and the Frank-Wolfe gap `2 (w'Qw - min_m (Qw)_m) >= f(w) - f(w*)`.

    Raises:
        EmptyTaskError: when there is no event.

    Example:
        >>> weights_M, gap = least_squares_weights(torch.tensor([[1.0, 3.0], [3.0, 5.0]]), torch.tensor([1.5, 3.5]))
        >>> weights_M
        tensor([0.7500, 0.2500], dtype=torch.float64)

    Reference:
        Breiman 1996, Stacked regressions, with the sum of weights fixed at 1.
    """
    if len(targets_E) == 0:
        raise EmptyTaskError("least_squares_optimal needs at least one labelled example. Found none.")
    residuals_ME = values_ME.double() - targets_E.double()
    q_MM = residuals_ME @ residuals_ME.T / len(targets_E)
    weights_M, gap = simplex_quadratic(q_MM, torch.zeros_like(q_MM[0]))
    # simplex_quadratic minimises half of w'Qw
    return weights_M, 2 * gap


@dataclass(frozen=True, kw_only=True)
class LeastSquaresOptimal(WeightRule):
    """Weights that minimise the validation error of the weighted average, over all targets in their own units."""

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "strategy/weights=nll_optimal"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Real-valued targets."""
        return frozenset({"regression"})

    def weights(self, predictions: Predictions) -> Weights:
        """See `least_squares_weights`; `fusion/frank_wolfe_gap` is the certificate, in squared units of the target."""
        labelled_NC = ~predictions.truth.isnan()
        w_M, gap = least_squares_weights(predictions.logits_MNC[:, labelled_NC], predictions.truth[labelled_NC])
        return Weights(values_M=w_M, diagnostics={"fusion/frank_wolfe_gap": gap})
