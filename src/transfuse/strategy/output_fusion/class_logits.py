"""One logistic regression a class: logits as weighted sums of the members', near the pooled weights.

It computes in NumPy. Dimensions in tensor names: M members, N examples, C classes (or labels), F features (the members'
and a constant), K classes with examples, P = F * K parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transfuse.strategy.weights.simplex import Array
from transfuse.strategy.weights.simplex_newton import Local
from transfuse.types import ConvergenceError

_TOLERANCE, _MAX_ITERATIONS = 1e-8, 100


@dataclass(frozen=True, kw_only=True)
class Logits:
    """What was found.

    Attributes:
        weights_MC: (M, C) float64, of any sign.
        bias_C: (C,) float64.
        diagnostics: `fusion/kkt_gap`, how far the objective can be from its minimum (for labels: their sum);
            `fusion/pooled_classes`, how many columns are the pooled weights for want of examples.
    """

    weights_MC: Tensor
    bias_C: Tensor
    diagnostics: dict[str, float]


def class_logits(features_MNC: Tensor, labels_N: Tensor, pooled_M: Tensor, *, penalty: float) -> Logits:
    """`min_{W, b} mean_n [log sum_c exp z_nc - z_ny] + penalty (||W - w||^2 + ||b||^2)`, `z_c = sum_m W_mc f_mc + b_c`.

    Args:
        features_MNC: (M, N, C) log-probabilities.
        labels_N: (N,) classes; -1 for unlabelled.
        pooled_M: (M,) weights w.
        penalty: > 0.
    """
    known = labels_N >= 0
    x_MNC, y_N, w_M = features_MNC[:, known].numpy(), labels_N[known].numpy(), pooled_M.numpy()
    present_K = np.unique(y_N)
    # columns of absent classes stay, the others are w + d
    pooled_NC = np.einsum("m,mnc->nc", w_M, x_MNC)
    x_FNK = _with_constant(x_MNC[:, :, present_K])
    true_NK = (y_N[:, None] == present_K).astype(np.float64)

    def function(d_P: Array) -> Local:
        d_FK = d_P.reshape(len(x_FNK), -1)
        z_NC = pooled_NC.copy()
        z_NC[:, present_K] += np.einsum("fk,fnk->nk", d_FK, x_FNK)
        largest_N = z_NC.max(axis=1, keepdims=True)
        p_NC = np.exp(z_NC - largest_N)
        log_total_N = np.log(p_NC.sum(axis=1, keepdims=True)) + largest_N
        p_NK = np.exp(z_NC[:, present_K] - log_total_N)
        nll = float(log_total_N.mean() - (true_NK * z_NC[:, present_K]).sum() / len(y_N))
        gradient_FK = np.einsum("nk,fnk->fk", p_NK - true_NK, x_FNK) / len(y_N)
        return _penalized(nll, gradient_FK.reshape(-1), _softmax_hessian(x_FNK, p_NK), d_P, penalty)

    d_P, gap = _newton(function, np.zeros(len(x_FNK) * len(present_K)), penalty)
    change_FC = np.zeros((len(x_FNK), x_MNC.shape[2]))
    change_FC[:, present_K] = d_P.reshape(len(x_FNK), -1)
    return _found(change_FC, w_M, gap, len(present_K))


def label_logits(features_MNL: Tensor, outcomes_E: Tensor, pooled_M: Tensor, *, penalty: float) -> Logits:
    """For each label alone `min_{v, b} mean_n log(1 + exp(-t_n z_n)) + penalty (||v - w||^2 + b^2)`, `z = v'f + b`.

    Args:
        features_MNL: (M, N, L) log-odds.
        outcomes_E: (N * L,) zeros and ones; -1 for unlabelled.
        pooled_M: (M,) weights w; a label that no example has gets them.
        penalty: > 0.
    """
    w_M = pooled_M.numpy()
    labels_NL = outcomes_E.reshape(features_MNL.shape[1:]).numpy()
    change_FL, gaps, present = np.zeros((len(w_M) + 1, labels_NL.shape[1])), 0.0, 0
    for label in range(labels_NL.shape[1]):
        y_N = labels_NL[:, label]
        if not (y_N == 1).any():
            continue
        x_FN = _with_constant(features_MNL[:, torch.from_numpy(y_N >= 0), label].numpy())
        function = _logistic(x_FN, y_N[y_N >= 0], w_M, penalty)
        change_FL[:, label], gap = _newton(function, np.zeros(len(x_FN)), penalty)
        gaps, present = gaps + gap, present + 1
    return _found(change_FL, w_M, gaps, present)


def _logistic(x_FN: Array, y_N: Array, w_M: Array, penalty: float) -> Callable[[Array], Local]:
    pooled_N, sign_N = w_M @ x_FN[:-1], 1.0 - 2.0 * y_N

    def function(d_F: Array) -> Local:
        against_N = sign_N * (pooled_N + d_F @ x_FN)
        nll_N = np.logaddexp(0.0, against_N)
        # 1 - probability of what happened
        p_N = np.exp(against_N - nll_N)
        gradient_F = x_FN @ (sign_N * p_N) / len(y_N)
        hessian_FF = (x_FN * (p_N * (1 - p_N))) @ x_FN.T / len(y_N)
        return _penalized(float(nll_N.mean()), gradient_F, hessian_FF, d_F, penalty)

    return function


def _softmax_hessian(x_FNK: Array, p_NK: Array) -> Array:
    """(P, P) `mean_n [x_fk x_gk p_k (k = l) - x_fk p_k x_gl p_l]`."""
    features, examples, classes = x_FNK.shape
    weighted_FNK = x_FNK * p_NK
    flat_NP = weighted_FNK.transpose(1, 0, 2).reshape(examples, -1)
    hessian_FKFK = (-flat_NP.T @ flat_NP).reshape(features, classes, features, classes)
    each = np.arange(classes)
    # NumPy puts the dimension of both indices first: (K, F, F)
    hessian_FKFK[:, each, :, each] += weighted_FNK.transpose(2, 0, 1) @ x_FNK.transpose(2, 1, 0)
    hessian_PP: Array = hessian_FKFK.reshape(flat_NP.shape[1], -1) / examples
    return hessian_PP


def _penalized(nll: float, gradient_P: Array, hessian_PP: Array, d_P: Array, penalty: float) -> Local:
    return Local(
        value=nll + penalty * float(d_P @ d_P),
        gradient_M=gradient_P + 2 * penalty * d_P,
        hessian_MM=hessian_PP + 2 * penalty * np.eye(len(d_P)),
    )


def _newton(function: Callable[[Array], Local], start_P: Array, penalty: float) -> tuple[Array, float]:
    """The minimum and its certificate: f is strongly convex, so `f(d) - f(d*) <= ||g||^2 / (4 penalty)`."""
    d_P, here = start_P, function(start_P)
    for _ in range(_MAX_ITERATIONS):
        direction_P = -np.linalg.solve(here.hessian_MM, here.gradient_M)
        slope, step = float(here.gradient_M @ direction_P), 1.0
        there = function(d_P + direction_P)
        while there.value > here.value + 1e-4 * step * slope + 1e-14 * (1 + abs(here.value)) and step > 1e-10:
            step /= 2
            there = function(d_P + step * direction_P)
        # once rounding rules, gradients stop falling
        if -slope < 1e-12 and not np.linalg.norm(there.gradient_M) < np.linalg.norm(here.gradient_M) / 2:
            break
        d_P, here = d_P + step * direction_P, there
    gap = float(here.gradient_M @ here.gradient_M) / (4 * penalty)
    if not gap <= _TOLERANCE:
        raise ConvergenceError(
            f"The weights are certified to {gap:.3g} only, above {_TOLERANCE:g}, after at most {_MAX_ITERATIONS} "
            f"Newton steps. Raise `penalty`? Found `penalty = {penalty}`."
        )
    return d_P, gap


def _with_constant(x: Array) -> Array:
    return np.concatenate([x, np.ones_like(x[:1])])


def _found(change_FC: Array, w_M: Array, gap: float, present: int) -> Logits:
    return Logits(
        weights_MC=torch.from_numpy(w_M[:, None] + change_FC[:-1]),
        bias_C=torch.from_numpy(change_FC[-1].copy()),
        diagnostics={"fusion/kkt_gap": gap, "fusion/pooled_classes": float(change_FC.shape[1] - present)},
    )
