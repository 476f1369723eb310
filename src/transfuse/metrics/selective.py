"""Selective prediction: what the error is where only the most confident predictions are taken.

Dimensions in tensor names: N examples, or entries of label sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """The risk-coverage curve, one point for each number of examples that are kept.

    Attributes:
        coverages_N: `1/N, 2/N .. 1`: the share that is kept, float64.
        risks_N: mean loss of the kept ones.
        thresholds_N: the least confidence among them.
    """

    coverages_N: Tensor
    risks_N: Tensor
    thresholds_N: Tensor

    @property
    def area(self) -> float:
        """Area under the curve: the mean of the risks over coverages, lower is better; NaN without examples."""
        return float(self.risks_N.mean())

    def thinned(self, points: int) -> RiskCoverage:
        """At most `points` points, spread evenly over the coverage; the full coverage is always among them."""
        total = len(self.coverages_N)
        if total <= points:
            return self
        # ceil(k N / points) - 1 for k = 1 .. points
        index = (torch.arange(1, points + 1) * total + points - 1) // points - 1
        return RiskCoverage(
            coverages_N=self.coverages_N[index], risks_N=self.risks_N[index], thresholds_N=self.thresholds_N[index]
        )


def risk_coverage(confidence_N: Tensor, loss_N: Tensor) -> RiskCoverage:
    """Mean loss of the k most confident examples, for every k.

    `risk(k / N) = 1 / k sum_{i <= k} loss_i`, examples in decreasing order of confidence. Examples of equal confidence
    enter with their mean loss, which is the expectation over their order: the order of the data does not matter.

    Args:
        confidence_N: (N,) larger is surer.
        loss_N: (N,) of any loss; 0 and 1 for errors.

    Returns:
        The curve; its last point is the mean loss, its `area` the AURC.

    Reference: Geifman and El-Yaniv, Selective classification for deep neural networks, 2017, arXiv:1705.08500.

    >>> risk_coverage(torch.tensor([0.9, 0.8, 0.6]), torch.tensor([0.0, 1.0, 0.0])).risks_N
    tensor([0.0000, 0.5000, 0.3333], dtype=torch.float64)
    """
    ordered_N, order_N = confidence_N.double().sort(descending=True)
    _, group_N, size_G = torch.unique_consecutive(ordered_N, return_inverse=True, return_counts=True)
    total_G = torch.bincount(group_N, weights=loss_N.double()[order_N], minlength=len(size_G))
    kept_N = torch.arange(1, len(ordered_N) + 1, dtype=torch.float64)
    return RiskCoverage(
        coverages_N=kept_N / len(ordered_N),
        risks_N=(total_G / size_G)[group_N].cumsum(0) / kept_N,
        thresholds_N=ordered_N,
    )
