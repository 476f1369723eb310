"""What averaging gains, exactly: the members' mean loss, less the loss of their average, is how much they differ.

Dimensions in tensor names: M members, N examples, D targets, E events, O outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """`members - pooled = ambiguity`, each side computed by itself.

    Attributes:
        members: weighted mean of the members' losses.
        pooled: loss of the members' average.
        ambiguity: how much the members differ, >= 0: the gain of averaging. It needs no labels.
    """

    members: float
    pooled: float
    ambiguity: float


def squared_error_ambiguity(values_MND: Tensor, targets_ND: Tensor, weights_M: Tensor | None = None) -> Ambiguity:
    """`sum_m w_m (f_m - y)^2 - (f - y)^2 = sum_m w_m (f_m - f)^2` with `f = sum_m w_m f_m`, as means over entries.

    Args:
        values_MND: (M, N, D) predictions.
        targets_ND: (N, D) targets; entries that are NaN take no part.
        weights_M: (M,) on the simplex; uniform by default.

    Returns:
        NaN in all three without a labelled entry.

    Reference: Krogh and Vedelsby, Neural network ensembles, cross validation, and active learning, 1995, equation 6.

    >>> result = squared_error_ambiguity(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[1.0]]))
    >>> result.members, result.pooled, result.ambiguity
    (2.0, 1.0, 1.0)
    """
    known_ND = ~targets_ND.isnan()
    values_ME, target_E = values_MND[:, known_ND].double(), targets_ND[known_ND].double()
    weights_M1 = _weights(values_ME, weights_M)[:, None]
    average_E = (weights_M1 * values_ME).sum(0)
    return Ambiguity(
        members=float((weights_M1 * (values_ME - target_E).square()).sum(0).mean()),
        pooled=float((average_E - target_E).square().mean()),
        ambiguity=float((weights_M1 * (values_ME - average_E).square()).sum(0).mean()),
    )


def log_loss_ambiguity(log_probs_MEO: Tensor, outcomes_E: Tensor, weights_M: Tensor | None = None) -> Ambiguity:
    """`sum_m w_m NLL_m - NLL(geometric pool) = -mean_e log Z_e` with `Z_e = sum_o prod_m p_meo^{w_m}`, in nats.

    Args:
        log_probs_MEO: (M, E, O) finite log-probabilities.
        outcomes_E: (E,) int64 in [0, O): what came true.
        weights_M: (M,) on the simplex; uniform by default.

    Reference: Wood et al., A unified theory of diversity in ensemble learning, 2023, arXiv:2301.03962.

    >>> result = log_loss_ambiguity(torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log(), torch.tensor([0]))
    >>> round(result.pooled, 4), round(result.ambiguity, 4)
    (0.6931, 0.5108)
    """
    log_probs_MEO = log_probs_MEO.double()
    weights_M = _weights(log_probs_MEO, weights_M)
    log_pool_EO = torch.einsum("m,meo->eo", weights_M, log_probs_MEO)
    index_E1 = outcomes_E[:, None]
    true_ME = log_probs_MEO.gather(2, index_E1.expand(len(log_probs_MEO), -1, -1)).squeeze(2)
    return Ambiguity(
        members=-float((weights_M @ true_ME).mean()),
        pooled=-float(log_pool_EO.log_softmax(1).gather(1, index_E1).mean()),
        ambiguity=-float(log_pool_EO.logsumexp(1).mean()),
    )


def _weights(of_members: Tensor, weights_M: Tensor | None) -> Tensor:
    if weights_M is not None:
        # the identity needs a sum of exactly 1, which float32 weights miss by 1e-8
        return weights_M.double() / weights_M.double().sum()
    num_members = len(of_members)
    return torch.full((num_members,), 1 / num_members, dtype=torch.float64)
