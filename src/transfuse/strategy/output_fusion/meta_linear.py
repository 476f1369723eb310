"""The log-linear meta learner of stacking: logistic regression on log-probabilities, with a prior.

It computes in NumPy and SciPy. Dimensions in tensor names: M members, N examples, C classes (labels, targets),
F = M*C features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.meta_features import linear_outputs, log_features
from transfuse.strategy.output_fusion.meta_ridge import ridge_regression
from transfuse.strategy.predictions import Predictions
from transfuse.types import ConvergenceError, TaskKind

Array = NDArray[np.float64]
Loss = Callable[[Array], tuple[float, Array]]  # logits (N, C) -> the mean loss, and its gradient (N, C)

_TOLERANCE = 1e-6  # of the largest entry of the gradient
_MAX_ITERATIONS = 10_000


def logistic_regression(
    features_NF: Tensor, labels: Tensor, prior_CF: Tensor, *, penalty: float, bias: bool
) -> tuple[Tensor, Tensor, float]:
    """`argmin_{W, b} mean NLL + penalty ||W - W0||^2` of the logits `W x + b`, by L-BFGS with exact gradients.

    The problem is strictly convex in W. With W0 = 0 it is scikit-learn's `LogisticRegression(C=1 / (2 N penalty))`.

    Args:
        features_NF: (N, F) float64.
        labels: (N,) integer classes, -1 for unlabelled; or (N, C) zeros and ones, NaN for unlabelled, for a Bernoulli
            likelihood of each label, averaged over examples and labels.
        prior_CF: W0.
        penalty: > 0.
        bias: whether there is a `b`, which is not penalized; without, it is 0.

    Returns:
        W (C, F) and b (C,), float64, and the largest absolute entry of the gradient there.

    Raises:
        ConvergenceError: when the gradient stays above 1e-6.

    Example:
        >>> x_NF, y_N = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double(), torch.tensor([0, 1])
        >>> W_CF, b_C, _ = logistic_regression(x_NF, y_N, torch.eye(2).double(), penalty=1e6, bias=True)
        >>> W_CF.diagonal().round(decimals=3)
        tensor([1., 1.], dtype=torch.float64)
    """
    x_NF, prior = features_NF.detach().cpu().numpy(), prior_CF.cpu().numpy()
    mean_F = x_NF.mean(axis=0) if bias else np.zeros(x_NF.shape[1])
    # W = W0 + V / unit: curvature of V near 1 whatever the penalty; centered features leave b its own direction
    unit = math.sqrt(float(((x_NF - mean_F) ** 2).mean()) / 4 + 2 * penalty)
    loss = _bernoulli(labels) if labels.is_floating_point() else _multinomial(labels)
    v_CF, b_C, gradient = _minimum(
        loss, (x_NF - mean_F) / unit, offset_NC=x_NF @ prior.T, weight=penalty / unit**2, bias=bias
    )
    return torch.from_numpy(prior + v_CF / unit), torch.from_numpy(b_C - v_CF @ mean_F / unit), gradient


def _minimum(loss: Loss, z_NF: Array, *, offset_NC: Array, weight: float, bias: bool) -> tuple[Array, Array, float]:
    """`argmin_{V, b} loss(offset + z V' + b) + weight ||V||^2`: V (C, F), b (C,), and the largest gradient."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    shape = (offset_NC.shape[1], z_NF.shape[1])

    def parts(parameters: Array) -> tuple[Array, Array]:
        return parameters[: math.prod(shape)].reshape(shape), parameters[math.prod(shape) :]

    def objective(parameters: Array) -> tuple[float, Array]:
        v_CF, b_C = parts(parameters)
        value, gradient_NC = loss(offset_NC + z_NF @ v_CF.T + b_C)
        gradient_C = gradient_NC.sum(axis=0) if bias else np.zeros(shape[0])
        gradient_CF = gradient_NC.T @ z_NF + 2 * weight * v_CF
        return value + weight * float((v_CF**2).sum()), np.concatenate([gradient_CF.ravel(), gradient_C])

    # thousands of small products: to start threads for each takes ten times longer than to compute it
    with threadpool_limits(1, user_api="blas"):
        found = minimize(
            objective,
            np.zeros(math.prod(shape) + shape[0]),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
                "maxcor": 20,
                "ftol": 0.0,
                "gtol": 1e-10,
            },
        )
    gradient = float(np.abs(found.jac).max())
    if not gradient <= _TOLERANCE:
        raise ConvergenceError(
            f"The meta learner's gradient is {gradient:.3g} after {found.nit} iterations, above {_TOLERANCE:g}. "
            f"Raise `penalty`?"
        )
    return *parts(found.x), gradient


def _multinomial(labels_N: Tensor) -> Loss:
    """`-mean_n log softmax(z_n)[y_n]` over labelled examples."""
    known_N = (labels_N >= 0).cpu().numpy()
    rows, classes = known_N.nonzero()[0], labels_N.cpu().numpy()[known_N]

    def loss(z_NC: Array) -> tuple[float, Array]:
        shifted_NC = z_NC - z_NC.max(axis=1, keepdims=True)
        exp_NC = np.exp(shifted_NC)
        sum_N = exp_NC.sum(axis=1)
        nll = float((np.log(sum_N[rows]) - shifted_NC[rows, classes]).mean())
        # (p - onehot(y)) / N
        gradient_NC: Array = exp_NC * (known_N / sum_N)[:, None]
        gradient_NC[rows, classes] -= 1
        return nll, gradient_NC / len(rows)

    return loss


def _bernoulli(labels_NC: Tensor) -> Loss:
    """`mean_nc log(1 + exp(z)) - y z` over known labels."""
    known_NC = (~labels_NC.isnan()).double().cpu().numpy()
    y_NC, count = labels_NC.nan_to_num(0.0).double().cpu().numpy(), known_NC.sum()

    def loss(z_NC: Array) -> tuple[float, Array]:
        softplus_NC = np.logaddexp(0.0, z_NC)
        # sigmoid(z) = exp(z - log(1 + exp(z)))
        gradient_NC: Array = known_NC * (np.exp(z_NC - softplus_NC) - y_NC) / count
        return float((known_NC * (softplus_NC - y_NC * z_NC)).sum() / count), gradient_NC

    return loss


class LinearStack(Combiner):
    """`softmax(W log p + b)`; multi-label: log-odds `W l + b` of the members' log-odds; regression: `W y + b`."""

    coefficients_CF: Tensor
    intercept_C: Tensor

    def __init__(
        self, kind: TaskKind, coefficients_CF: Tensor, intercept_C: Tensor, *, diagnostics: Mapping[str, float]
    ) -> None:
        super().__init__(kind, diagnostics=diagnostics)
        self.register_buffer("coefficients_CF", coefficients_CF)
        self.register_buffer("intercept_C", intercept_C)

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The stack's logits (N, C)."""
        outputs_NC = linear_outputs(log_features(logits_MNC, self.kind), self.coefficients_CF, self.intercept_C)
        return outputs_NC.log_softmax(dim=-1) if self.kind == "classification" else outputs_NC


def fit_linear(predictions: Predictions, prior_CF: Tensor, *, penalty: float, bias: bool) -> LinearStack:
    """`logistic_regression` on `log_features`; for regression `regression_map`."""
    kind, labels = predictions.kind, predictions.truth
    features_NF = log_features(predictions.logits_MNC.double(), kind)
    if kind == "regression":
        w_CF, b_C = regression_map(features_NF, labels.double(), prior_CF, penalty=penalty, bias=bias)
        return LinearStack(kind, w_CF, b_C, diagnostics={})
    labels = labels if kind == "classification" else labels.double()
    w_CF, b_C, gradient = logistic_regression(features_NF, labels, prior_CF, penalty=penalty, bias=bias)
    return LinearStack(kind, w_CF, b_C, diagnostics={"fusion/gradient": gradient})


def regression_map(
    values_NF: Tensor, targets_NC: Tensor, prior_CF: Tensor, *, penalty: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """`argmin_{W, b} mean_n ||y_n - W x_n - b||^2 + penalty ||W - W0||^2`, all in units of the targets' deviations.

    Example:
        >>> y_NC = torch.tensor([[1.0], [3.0]]).double()
        >>> regression_map(y_NC, y_NC, torch.zeros(1, 1).double(), penalty=1.0, bias=True)
        (tensor([[0.5000]], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    scale_C = deviations(targets_NC)
    scale_F = scale_C.repeat(values_NF.shape[1] // len(scale_C))
    columns = []
    for target in range(len(scale_C)):
        known_N = ~targets_NC[:, target].isnan()
        y_N1 = targets_NC[known_N, target : target + 1] / scale_C[target]
        prior_1F = prior_CF[target : target + 1]
        alpha = penalty * max(int(known_N.sum()), 1)
        columns.append(ridge_regression(values_NF[known_N] / scale_F, y_N1, prior_1F, alpha=alpha, bias=bias))
    w_CF, b_C = torch.cat([w_1F for w_1F, _ in columns]), torch.cat([b_1 for _, b_1 in columns])
    return w_CF * scale_C[:, None] / scale_F, b_C * scale_C


def deviations(targets_NC: Tensor) -> Tensor:
    """(C,) float64 standard deviations of the known targets; 1 where all are equal or unknown.

    Example:
        >>> deviations(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        tensor([1., 1.], dtype=torch.float64)
    """
    scales = [column_N[~column_N.isnan()].std(correction=0) for column_N in targets_NC.double().T]
    return torch.stack([scale if scale > 0 else torch.ones_like(scale) for scale in scales])
