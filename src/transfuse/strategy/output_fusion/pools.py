"""Pools of opinions: weighted means of probabilities, of logits, or of values.

Dimensions in tensor names: M members, N examples, C classes, E events with O outcomes (see `predictions`).
"""

from __future__ import annotations

from torch import Tensor

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.predictions import log_outcomes, logits_of


def average_log_probabilities(log_probs_MEO: Tensor, weights_M: Tensor) -> Tensor:
    """Logarithm of the weighted mean of probabilities, `log sum_m w_m p_m`, without leaving the log domain.

    Args:
        log_probs_MEO: (M, E, O) finite log-probabilities.
        weights_M: (M,) >= 0, summing to 1.

    Returns:
        (E, O) log-probabilities in the dtype of the input.

    Example:
        >>> average_log_probabilities(torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]]).log(), torch.tensor([0.5, 0.5])).exp()
        tensor([[0.7000, 0.3000]])

    Reference:
        Linear opinion pool, Stone 1961; deep ensembles, Lakshminarayanan et al. 2017 (1612.01474).
    """
    log_weights_M = weights_M.log().to(log_probs_MEO.dtype)
    return (log_probs_MEO + log_weights_M[:, None, None]).logsumexp(dim=0)


def average_values(values_MNC: Tensor, weights_M: Tensor) -> Tensor:
    """`sum_m w_m y_m`, (N, C).

    Example:
        >>> average_values(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([0.25, 0.75]))
        tensor([[2.5000]])
    """
    return (weights_M.to(values_MNC.dtype)[:, None, None] * values_MNC).sum(dim=0)


class LinearPool(Combiner):
    """`p = sum_m w_m p_m`; values for regression. Has `weights` (M,)."""

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        assert self.weights is not None
        if self.kind == "regression":
            return average_values(logits_MNC, self.weights)
        pooled_EO = average_log_probabilities(log_outcomes(logits_MNC, self.kind), self.weights)
        return logits_of(pooled_EO, self.kind, logits_MNC.shape[2])


class LogitPool(Combiner):
    """`z = sum_m w_m z_m`, normalized for classification. Has `weights` (M,)."""

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        assert self.weights is not None
        pooled_NC = average_values(logits_MNC, self.weights)
        return pooled_NC.log_softmax(dim=-1) if self.kind == "classification" else pooled_NC
