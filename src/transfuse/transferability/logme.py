"""`logme`: the log evidence of a Bayesian linear model on the features.

Dimensions in tensor names: N examples, D features, K rank, T targets, G grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from transfuse.transferability.score import Array, Labels, Score, one_hot

_REFINEMENTS = 11
_POINTS = 81


@dataclass(frozen=True, kw_only=True)
class LogMe(Score):
    """max over (alpha, beta) of `log N(y; 0, I/beta + f f^T/alpha) / N`, mean over one-hot classes or target columns.

    With `f = U S V^T`, `sigma = S^2`, `x = U^T y` and `t = alpha/beta`, beta is `N / Q(t)` and the evidence

        Q(t)  = sum_k x_k^2 t/(t + sigma_k) + |y|^2 - |x|^2
        ev(t) = -1/2 sum_k log(1 + sigma_k/t) - N/2 log(Q(t)/N) - N/2 (1 + log 2 pi)

    is maximized over log t on ever finer grids. Exact for fewer examples than features too, where fixed points of
    published code are not.

    Reference:
        You et al. 2021, "LogME: practical assessment of pre-trained models for transfer learning", 2102.11005.
    """

    regression: ClassVar[bool] = True

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """Of one-hot columns."""
        return self.of_targets(values, one_hot(labels_N))

    def of_targets(self, values: Array, targets_NT: Array) -> float:
        """Mean over columns."""
        return float(np.mean(max_evidence(values, targets_NT)))


def max_evidence(features_ND: Array, targets_NT: Array) -> Array:
    """(T,) largest log evidence per example."""
    num_examples = len(features_ND)
    left_NK, singular_K, _ = np.linalg.svd(features_ND, full_matrices=False)
    cut = max(features_ND.shape) * np.finfo(float).eps * (singular_K[0] if singular_K.size else 0.0)
    kept_K = singular_K > cut
    sigma_K, x_KT = singular_K[kept_K] ** 2, left_NK[:, kept_K].T @ targets_NT
    total_T = (targets_NT**2).sum(0)
    rest_T = np.maximum(total_T - (x_KT**2).sum(0), 0.0)
    if len(sigma_K) == num_examples:
        rest_T = np.zeros_like(rest_T)
    if not len(sigma_K):
        flat: Array = evidence(np.zeros((1, len(total_T))), sigma_K, x_KT, rest_T, num_examples)[0]
        return flat
    center = np.log(sigma_K.max())
    low_T, high_T = np.full_like(total_T, center - 30), np.full_like(total_T, center + 30)
    for _ in range(_REFINEMENTS + 1):
        grid_GT = np.linspace(low_T, high_T, _POINTS)
        found_GT = evidence(grid_GT, sigma_K, x_KT, rest_T, num_examples)
        best_T = found_GT.argmax(0)
        columns_T = np.arange(len(total_T))
        low_T = grid_GT[np.maximum(best_T - 1, 0), columns_T]
        high_T = grid_GT[np.minimum(best_T + 1, _POINTS - 1), columns_T]
    best: Array = found_GT.max(0)
    return best


def evidence(log_t_GT: Array, sigma_K: Array, x_KT: Array, rest_T: Array, num_examples: int) -> Array:
    """ev(t) / N, (G, T)."""
    t_GTK = np.exp(log_t_GT)[..., None]
    q_GT = (x_KT.T**2 * (t_GTK / (t_GTK + sigma_K))).sum(-1) + rest_T
    spread_GT = np.log1p(sigma_K / t_GTK).sum(-1)
    half = num_examples / 2
    with np.errstate(divide="ignore"):
        total_GT = -spread_GT / 2 - half * np.log(q_GT / num_examples) - half * (1 + np.log(2 * np.pi))
    per_example_GT: Array = total_GT / num_examples
    return per_example_GT
