"""One linear pool a class: weights on the simplex, column by column, near the pooled ones.

Dimensions in tensor names: M members, E events, O outcomes, N examples, C classes, L labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transfuse.metrics.classification import NLL_FLOOR
from transfuse.strategy.predictions import true_log_probs
from transfuse.strategy.weights.simplex import Array
from transfuse.strategy.weights.simplex_newton import Local, minimize_on_simplex

_SPREAD = 0.1  # share of uniform weights in the start: no event then has a likelihood of almost 0 there


@dataclass(frozen=True, kw_only=True)
class Mixtures:
    """What was found.

    Attributes:
        weights_MC: (M, C) float64, each column on the simplex.
        diagnostics: `fusion/kkt_gap`, the sum of the columns' gaps; `fusion/pooled_classes`, how many columns are the
            pooled weights for want of examples.
    """

    weights_MC: Tensor
    diagnostics: dict[str, float]


def class_mixtures(log_probs_MEO: Tensor, labels_E: Tensor, pooled_M: Tensor, *, penalty: float) -> Mixtures:
    """Weights W (M, C) of `p_c = q_c / sum_k q_k`, `q_c = sum_m W_mc p_mc`.

    The NLL of normalized q is not convex in W. As `log Z <= Z - 1`, it is at most
    `mean_e [-log q_ey + sum_c q_ec - 1]`, with equality where q sums to 1, as it does for the pooled weights. This
    bound is convex, and a sum over classes: its minimum is found for each class alone, and the NLL there is never above
    that of the pooled weights.

    Args:
        log_probs_MEO: (M, N, C) log-probabilities.
        labels_E: (N,) classes; -1 for unlabelled.
        pooled_M: (M,) weights on the simplex, for classes without examples, and the center of the penalty.
        penalty: >= 0, of `penalty ||W - w||^2`.

    Example:
        >>> p_MNC = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.5, 0.5], [0.1, 0.9]]])
        >>> class_mixtures(p_MNC.log(), torch.tensor([0, 1]), torch.tensor([0.5, 0.5]), penalty=0.0).weights_MC
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    known = labels_E >= 0
    p_MEC = log_probs_MEO[:, known].double().exp().clamp(min=NLL_FLOOR).numpy()
    labels, total_MC = labels_E[known].numpy(), p_MEC.mean(axis=1)
    columns: list[Callable[[Array], Local] | None] = [
        _bound(p_MEC[:, labels == c, c], len(labels), total_MC[:, c], penalty, pooled_M.numpy())
        if (labels == c).any()
        else None
        for c in range(p_MEC.shape[2])
    ]
    return _solved(columns, pooled_M)


def label_mixtures(log_probs_MEO: Tensor, labels_NL: Tensor, pooled_M: Tensor, *, penalty: float) -> Mixtures:
    """Weights W (M, L) of `p_l = sum_m W_ml p_ml`: for each label the minimum of its own `NLL + penalty ||W_l - w||^2`.

    Args:
        log_probs_MEO: (M, N * L, 2) log-probabilities of lacking and having the label.
        labels_NL: (N, L) zeros and ones; -1 for unlabelled.
        pooled_M: (M,) weights on the simplex, for labels that no example has, and the center of the penalty.
        penalty: >= 0.
    """
    log_probs_MNLO = log_probs_MEO.reshape(len(log_probs_MEO), *labels_NL.shape, 2)
    columns: list[Callable[[Array], Local] | None] = []
    for label in range(labels_NL.shape[1]):
        log_p_ME = true_log_probs(log_probs_MNLO[:, :, label], labels_NL[:, label]).double()
        p_ME = log_p_ME.exp().clamp(min=NLL_FLOOR).numpy()
        bound = _bound(p_ME, p_ME.shape[1], np.zeros(len(p_ME)), penalty, pooled_M.numpy())
        columns.append(bound if (labels_NL[:, label] == 1).any() else None)
    return _solved(columns, pooled_M)


def _bound(p_ME: Array, num_events: int, total_M: Array, penalty: float, center_M: Array) -> Callable[[Array], Local]:
    """`-sum_e log(v'p_e) / num_events + total'v + penalty ||v - center||^2` with its derivatives."""

    def function(v_M: Array) -> Local:
        q_E = v_M @ p_ME
        r_ME = p_ME / q_E
        away_M = v_M - center_M
        return Local(
            value=float(-np.log(q_E).sum() / num_events + total_M @ v_M + penalty * away_M @ away_M),
            gradient_M=-r_ME.sum(axis=1) / num_events + total_M + 2 * penalty * away_M,
            hessian_MM=r_ME @ r_ME.T / num_events + 2 * penalty * np.eye(len(v_M)),
        )

    return function


def _solved(columns: list[Callable[[Array], Local] | None], pooled_M: Tensor) -> Mixtures:
    center_M: Array = pooled_M.numpy()
    start_M = (1 - _SPREAD) * center_M + _SPREAD / len(center_M)
    found = [(center_M, 0.0) if column is None else minimize_on_simplex(column, start_M) for column in columns]
    return Mixtures(
        weights_MC=torch.from_numpy(np.stack([weights_M for weights_M, _ in found], axis=1)),
        diagnostics={
            "fusion/kkt_gap": sum(gap for _, gap in found),
            "fusion/pooled_classes": float(sum(column is None for column in columns)),
        },
    )
