"""`output_fusion/trimmed_mean`: the mean without the lowest and the highest.

Dimensions in tensor names: M members, N examples, C classes, E events, O outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of
from transfuse.types import HyperparameterError, TaskKind


def trimmed_log_probabilities(log_probs_MEO: Tensor, trimmed: int) -> Tensor:
    """Logarithm of the mean probability of each outcome without its `trimmed` lowest and highest members.

    It need not sum to 1.

    Args:
        log_probs_MEO: (M, E, O) log-probabilities.
        trimmed: k, members cut at each end, in [0, M / 2).

    Example:
        >>> import torch
        >>> trimmed_log_probabilities(torch.tensor([[[0.1]], [[0.3]], [[0.9]], [[0.5]]]).log(), 1).exp()
        tensor([[0.4000]])
    """
    kept_MEO = log_probs_MEO.sort(dim=0).values[trimmed : len(log_probs_MEO) - trimmed]
    return kept_MEO.logsumexp(dim=0) - math.log(len(kept_MEO))


class TrimmedPool(Combiner):
    """`p_c` proportional to the trimmed mean of `p_mc` over members; for regression that of values."""

    def __init__(self, kind: TaskKind, *, trimmed: int) -> None:
        super().__init__(kind, diagnostics={"fusion/trimmed": trimmed})
        self.trimmed = trimmed

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        if self.kind == "regression":
            return logits_MNC.sort(dim=0).values[self.trimmed : len(logits_MNC) - self.trimmed].mean(dim=0)
        log_probs_MEO = log_outcomes(logits_MNC, self.kind)
        return logits_of(trimmed_log_probabilities(log_probs_MEO, self.trimmed), self.kind, logits_MNC.shape[2])


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(OutputFusion):
    """The mean of what is left of each class's probabilities (or of values) after cutting both ends; normalized.

    `k = floor(trim * M)` members are cut at each end, as `scipy.stats.trim_mean` does; `fusion/trimmed` in the record
    says how many, since few members may give k = 0: the plain average. It fits nothing.

    Attributes:
        trim: share of members cut at each end, in [0, 0.5).
    """

    trim: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 0.5:
            raise HyperparameterError(f"`trim` should be in [0, 0.5). Found `trim = {self.trim}`.")

    def combine(self, predictions: Predictions) -> TrimmedPool:
        """The pool; it has no weights."""
        return TrimmedPool(predictions.kind, trimmed=int(self.trim * predictions.num_members))
