"""The least-squares meta learner of stacking.

Dimensions in tensor names: M members, N examples, C classes (labels, targets), F = M*C features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.meta_features import FLOOR, linear_outputs, probability_features
from transfuse.strategy.predictions import Predictions
from transfuse.types import TaskKind

Array = NDArray[np.float64]


def ridge_regression(
    features_NF: Tensor, targets_NC: Tensor, prior_CF: Tensor, *, alpha: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """`argmin_{W, b} sum_n ||y_n - W x_n - b||^2 + alpha ||W - W0||^2` in closed form.

    Args:
        features_NF: (N, F) float64.
        targets_NC: (N, C) float64; NaN where unknown: each target is fitted on the examples that have it.
        prior_CF: W0.
        alpha: > 0.
        bias: whether there is a `b`, which is not penalized; without, it is 0.

    Returns:
        W (C, F) and b (C,), float64.

    Example:
        >>> x_NF, y_NC = torch.tensor([[0.0], [1.0], [2.0]]).double(), torch.tensor([[1.0], [3.0], [5.0]]).double()
        >>> ridge_regression(x_NF, y_NC, torch.zeros(1, 1).double(), alpha=2.0, bias=True)
        (tensor([[1.]], dtype=torch.float64), tensor([2.], dtype=torch.float64))

    Reference:
        Hoerl & Kennard 1970; for stacking Breiman 1996.
    """
    x_NF, y_NC, prior = (tensor.detach().cpu().numpy() for tensor in (features_NF, targets_NC, prior_CF))
    known_NC = ~np.isnan(y_NC)
    w_CF, b_C = np.array(prior), np.zeros(len(prior))
    for pattern_N in np.unique(known_NC, axis=1).T:
        columns = (known_NC == pattern_N[:, None]).all(axis=0)
        if pattern_N.any():
            w_CF[columns], b_C[columns] = _solved(
                x_NF[pattern_N], y_NC[pattern_N][:, columns], prior[columns], alpha, bias
            )
    return torch.from_numpy(w_CF), torch.from_numpy(b_C)


def _solved(x_NF: Array, y_NC: Array, prior_CF: Array, alpha: float, bias: bool) -> tuple[Array, Array]:
    # with U = W - W0 and centered X and R = Y - X W0': (X'X + alpha I) U' = X'R
    mean_F = x_NF.mean(axis=0) if bias else np.zeros(x_NF.shape[1])
    residual_NC = y_NC - x_NF @ prior_CF.T
    offset_C = residual_NC.mean(axis=0) if bias else np.zeros(y_NC.shape[1])
    centered_NF = x_NF - mean_F
    gram_FF = centered_NF.T @ centered_NF + alpha * np.eye(x_NF.shape[1])
    u_CF = np.linalg.solve(gram_FF, centered_NF.T @ (residual_NC - offset_C)).T
    return prior_CF + u_CF, offset_C - u_CF @ mean_F


class RidgeStack(Combiner):
    """`W p + b` of the members' probabilities, clipped at 1e-6 and normalized; values for regression."""

    coefficients_CF: Tensor
    intercept_C: Tensor

    def __init__(self, kind: TaskKind, coefficients_CF: Tensor, intercept_C: Tensor) -> None:
        super().__init__(kind)
        self.register_buffer("coefficients_CF", coefficients_CF)
        self.register_buffer("intercept_C", intercept_C)

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The stack's logits (N, C), computed in float64: next to 0 and 1 a rounding error would count in them."""
        features_NF = probability_features(logits_MNC.double(), self.kind)
        scores_NC = linear_outputs(features_NF, self.coefficients_CF, self.intercept_C)
        if self.kind == "classification":
            scores_NC = scores_NC.clamp(min=FLOOR).log().log_softmax(dim=-1)
        elif self.kind == "multilabel":
            scores_NC = scores_NC.clamp(FLOOR, 1 - FLOOR).logit()
        return scores_NC.to(logits_MNC.dtype)


def fit_ridge(predictions: Predictions, prior_CF: Tensor, *, penalty: float, bias: bool) -> RidgeStack:
    """Least squares to one-hot targets (zeros and ones, values); `penalty` is `alpha` of `ridge_regression`."""
    features_NF = probability_features(predictions.logits_MNC.double(), predictions.kind)
    targets_NC = predictions.truth.double()
    if predictions.kind == "classification":
        known_N = predictions.truth >= 0
        features_NF = features_NF[known_N]
        targets_NC = one_hot(predictions.truth[known_N], predictions.logits_MNC.shape[2]).double()
    return RidgeStack(predictions.kind, *ridge_regression(features_NF, targets_NC, prior_CF, alpha=penalty, bias=bias))
