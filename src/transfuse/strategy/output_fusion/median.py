"""`output_fusion/median`: the median of the members' probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of


def median_log_probabilities(log_probs_MEO: Tensor) -> Tensor:
    """Logarithm of the median over members of each outcome's probability; it need not sum to 1.

    For even M the mean of the two middle probabilities, taken in the log domain: nothing underflows.

    Example:
        >>> median_log_probabilities(torch.tensor([[[0.1]], [[0.2]], [[0.9]], [[0.4]]]).log()).exp()
        tensor([[0.3000]])
    """
    sorted_MEO, middle = log_probs_MEO.sort(dim=0).values, len(log_probs_MEO) // 2
    if len(log_probs_MEO) % 2:
        return sorted_MEO[middle]
    # log((p + q) / 2)
    return torch.logaddexp(sorted_MEO[middle - 1], sorted_MEO[middle]) - math.log(2.0)


class MedianPool(Combiner):
    """`p_c = median_m p_mc`, normalized; for regression the median of values."""

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        if self.kind == "regression":
            sorted_MNC, num_members = logits_MNC.sort(dim=0).values, len(logits_MNC)
            return (sorted_MNC[(num_members - 1) // 2] + sorted_MNC[num_members // 2]) / 2
        return logits_of(median_log_probabilities(log_outcomes(logits_MNC, self.kind)), self.kind, logits_MNC.shape[2])


@dataclass(frozen=True, kw_only=True)
class Median(OutputFusion):
    """`p_c` = median over members of `p_mc`, normalized over classes; for regression the median of values.

    Fewer than half of the members cannot move it far, however wrong they are. It fits nothing.
    """

    def combine(self, predictions: Predictions) -> MedianPool:
        """The pool; it has no weights."""
        return MedianPool(predictions.kind)
