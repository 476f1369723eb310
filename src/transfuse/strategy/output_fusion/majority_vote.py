"""`output_fusion/majority_vote`: each member votes for its most likely class.

Dimensions in tensor names: M members, N examples, C classes, E events, O outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from torch.nn.functional import one_hot

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.pools import average_log_probabilities, average_values
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of
from transfuse.strategy.weights.base import WeightRule
from transfuse.strategy.weights.uniform import Uniform
from transfuse.types import HyperparameterError, TaskKind

_TIED = 1e-6  # shares closer than this are a tie
_BREAK = 2e-6  # above _TIED: the share that a tie's winner gets above the others


def vote_shares(log_probs_MEO: Tensor, weights_M: Tensor) -> Tensor:
    """`s_o = sum_m w_m [argmax p_m = o]`, (E, O); a member's own ties go to its first outcome.

    Example:
        >>> import torch
        >>> log_probs_MEO = torch.tensor([[[0.9, 0.1]], [[0.4, 0.6]], [[0.3, 0.7]]]).log()
        >>> vote_shares(log_probs_MEO, torch.tensor([0.25, 0.25, 0.5]))
        tensor([[0.2500, 0.7500]])
    """
    votes_MEO = one_hot(log_probs_MEO.argmax(dim=-1), log_probs_MEO.shape[-1]).to(log_probs_MEO.dtype)
    return average_values(votes_MEO, weights_M)


def break_ties(shares_EO: Tensor, preference_EO: Tensor) -> Tensor:
    """Shares in which, among outcomes with the most votes, the preferred one has a hair (2e-6) more; sums are kept."""
    tied_EO = shares_EO >= shares_EO.amax(dim=-1, keepdim=True) - _TIED
    winner_E = preference_EO.masked_fill(~tied_EO, -float("inf")).argmax(dim=-1)
    won_EO = one_hot(winner_E, shares_EO.shape[-1]).to(shares_EO.dtype)
    several_E1 = (tied_EO.sum(dim=-1, keepdim=True) > 1).to(shares_EO.dtype)
    # s + t (1[winner] - s): towards the winner, and the sum stays 1
    return shares_EO + _BREAK * several_E1 * (won_EO - shares_EO)


class VotePool(Combiner):
    """`log((s_c + a / C) / (1 + a))` of the vote shares s. Has `weights` (M,)."""

    def __init__(
        self, kind: TaskKind, *, weights: Tensor, smoothing: float, soft_ties: bool, diagnostics: dict[str, float]
    ) -> None:
        super().__init__(kind, weights=weights, diagnostics=diagnostics)
        self.smoothing = smoothing
        self.soft_ties = soft_ties

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        assert self.weights is not None
        log_probs_MEO = log_outcomes(logits_MNC, self.kind)
        shares_EO = vote_shares(log_probs_MEO, self.weights)
        if self.soft_ties:
            shares_EO = break_ties(shares_EO, average_log_probabilities(log_probs_MEO, self.weights))
        # log((s_o + a / O) / (1 + a))
        log_EO = ((shares_EO + self.smoothing / shares_EO.shape[-1]) / (1 + self.smoothing)).log()
        return logits_of(log_EO, self.kind, logits_MNC.shape[2])


@dataclass(frozen=True, kw_only=True)
class MajorityVote(OutputFusion):
    """The share of (weighted) votes for each class, smoothed; multi-label: a vote on each label, threshold 0.5.

    Votes throw confidence away, so calibration and NLL suffer.

    Attributes:
        smoothing: a > 0, pseudo-votes spread over the classes: no class gets probability 0.
        ties: `soft`, the larger mean probability wins (it gets a share of 2e-6 more), or `first`, the first class.
        weights: the rule that weighs votes.
    """

    smoothing: float = 0.01
    ties: Literal["soft", "first"] = "soft"
    weights: WeightRule = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        if not 0 < self.smoothing < float("inf"):
            raise HyperparameterError(f"`smoothing` should be > 0. Found `smoothing = {self.smoothing}`.")
        if self.ties not in ("soft", "first"):
            raise HyperparameterError(f"`ties` should be soft or first. Found `ties = {self.ties}`.")

    @property
    def rule(self) -> WeightRule:
        """The rule that weighs the members."""
        return self.weights

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with classes or labels that the rule can weigh members for."""
        return self.weights.kinds & {"classification", "multilabel"}

    @property
    def instead(self) -> str:
        """What fuses values too."""
        return "strategy=output_fusion/average"

    def combine(self, predictions: Predictions) -> VotePool:
        """The vote with the rule's weights."""
        found = self.weights.weights(predictions).checked(type(self.weights).__name__)
        return VotePool(
            predictions.kind,
            weights=found.values_M,
            smoothing=self.smoothing,
            soft_ties=self.ties == "soft",
            diagnostics=dict(found.diagnostics),
        )
