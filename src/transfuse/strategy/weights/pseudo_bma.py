"""Weights by predictive density: Bayesian model averaging with held-out instead of marginal likelihoods.

Dimensions in tensor names: M members, N examples, E events with O outcomes, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights, require_number
from transfuse.types import EmptyTaskError, TaskKind

_BLOCK = 2**20  # shares that are in memory at a time


def pseudo_bma_weights(log_likelihoods_MN: Tensor, shares_BN: Tensor | None = None) -> Tensor:
    """`w_m` proportional to `exp(sum_n log p_mn)`; with shares the mean over samples b of these weights.

    In sample b example n counts `N a_bn` times: `w_bm` proportional to `exp(N sum_n a_bn log p_mn)`. Without shares a
    difference of 0.01 nats an example is a factor of 20 at 300 examples: nearly always one member gets all the weight.

    Args:
        log_likelihoods_MN: (M, N) log-probability that member m gave to what is true of example n.
        shares_BN: (B, N) >= 0, each row summing to 1.

    Returns:
        (M,) float64 weights.

    Example:
        >>> pseudo_bma_weights(torch.tensor([[0.5, 0.5], [0.25, 0.25]]).log())
        tensor([0.8000, 0.2000], dtype=torch.float64)

    Reference:
        Yao, Vehtari, Simpson & Gelman 2018 (1704.02030), sections 3.3 and 3.4: pseudo-BMA and pseudo-BMA+.
    """
    log_likelihoods_MN = log_likelihoods_MN.double()
    if shares_BN is None:
        return log_likelihoods_MN.sum(dim=1).softmax(dim=0)
    log_scores_BM = shares_BN.double() @ log_likelihoods_MN.T * log_likelihoods_MN.shape[1]
    return log_scores_BM.softmax(dim=1).mean(dim=0)


def dirichlet_shares(num_samples: int, num_examples: int, alpha: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows (b, N) of Dirichlet(alpha, .., alpha), `num_samples` in all, in blocks that fit into memory."""
    draws = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    block = max(_BLOCK // num_examples, 1)
    for first in range(0, num_samples, block):
        # normalized gamma variables; of tiny alpha they underflow
        gamma_BN = draws.standard_gamma(alpha, size=(min(block, num_samples - first), num_examples)).clip(min=1e-300)
        yield torch.from_numpy(gamma_BN / gamma_BN.sum(axis=1, keepdims=True))


@dataclass(frozen=True, kw_only=True)
class PseudoBMA(WeightRule):
    """`w_m` proportional to the likelihood of the validation labels under member m; averaged over a Bayesian bootstrap.

    Attributes:
        bootstrap: whether to average over reweighted validation examples (pseudo-BMA+); without, one member gets
            nearly all the weight as soon as there are some hundred examples.
        samples: of the bootstrap, >= 1.
        alpha: of its Dirichlet distribution, > 0; 1 is the Bayesian bootstrap, large values are no bootstrap.
    """

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "strategy/weights=least_squares_optimal"

    bootstrap: bool = True
    samples: int = 1000
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_number("samples", self.samples, ">= 1", lambda value: value >= 1)
        require_number("alpha", self.alpha, "> 0", lambda value: value > 0)

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    def weights(self, predictions: Predictions) -> Weights:
        """See `pseudo_bma_weights`; multi-label: the log-probabilities of an example's labels add up."""
        log_likelihoods_MN = _example_log_likelihoods(predictions)
        if log_likelihoods_MN.shape[1] == 0:
            raise EmptyTaskError("pseudo_bma needs at least one labelled example. Found none.")
        if not self.bootstrap:
            return Weights(values_M=pseudo_bma_weights(log_likelihoods_MN))
        total_M = torch.zeros(len(log_likelihoods_MN), dtype=torch.float64)
        blocks = dirichlet_shares(self.samples, log_likelihoods_MN.shape[1], self.alpha, predictions.generator)
        for shares_BN in blocks:
            total_M += pseudo_bma_weights(log_likelihoods_MN, shares_BN) * len(shares_BN)
        return Weights(values_M=total_M / total_M.sum())


def _example_log_likelihoods(predictions: Predictions) -> Tensor:
    """(M, N) sums over what is labelled; examples without any label are left out."""
    log_probs_MEO, outcomes_E = predictions.log_outcomes_MEO, predictions.outcomes_E
    known_E = outcomes_E >= 0
    chosen_ME1 = outcomes_E.clamp(min=0).expand(len(log_probs_MEO), -1).unsqueeze(2)
    log_p_ME = torch.where(known_E, log_probs_MEO.gather(2, chosen_ME1).squeeze(2), 0.0)
    num_members, num_examples = predictions.logits_MNC.shape[:2]
    labelled_N = known_E.view(num_examples, -1).any(dim=1)
    return log_p_ME.view(num_members, num_examples, -1).sum(dim=2)[:, labelled_N]
