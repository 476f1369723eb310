"""How well confidences agree with how often predictions are right.

`confidence_N` in [0, 1] is the probability of the predicted class, `correct_N` (booleans) whether it was right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """The reliability table: one entry for each bin that holds examples.

    Attributes:
        bins: (B,) int64 number of the bin, from 0.
        counts: (B,) number of examples, float64.
        confidences: (B,) their mean confidence.
        accuracies: (B,) the share of them that is right.
    """

    bins: Tensor
    counts: Tensor
    confidences: Tensor
    accuracies: Tensor

    @property
    def gaps(self) -> Tensor:
        """`|accuracy - confidence|` of each bin."""
        return (self.accuracies - self.confidences).abs()

    @property
    def expected_gap(self) -> Tensor:
        """`sum_b n_b / N gap_b`; NaN without examples."""
        return (self.counts * self.gaps).sum() / self.counts.sum()

    @property
    def root_mean_square_gap(self) -> Tensor:
        """`sqrt(sum_b n_b / N gap_b^2)`; NaN without examples."""
        return ((self.counts * self.gaps.square()).sum() / self.counts.sum()).sqrt()

    @property
    def largest_gap(self) -> Tensor:
        """`max_b gap_b`; NaN without examples."""
        return self.gaps.max() if len(self.gaps) else torch.tensor(torch.nan, dtype=torch.float64)


def reliability(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Reliability:
    """The reliability table over `bins` bins of equal width, `[lo, hi)`, the last one closed."""
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    index_N = torch.bucketize(confidence_N.double().contiguous(), edges, right=True)
    return _table(confidence_N, correct_N, index_N, bins)


def equal_mass_reliability(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Reliability:
    """The reliability table over `min(bins, N)` bins of equally many examples (the first ones may have one more)."""
    num_examples = len(confidence_N)
    bins = min(bins, num_examples)
    order_N = confidence_N.sort(stable=True).indices
    index_N = torch.empty(num_examples, dtype=torch.int64)
    for bin_index, members in enumerate(torch.tensor_split(order_N, max(bins, 1))):
        index_N[members] = bin_index
    return _table(confidence_N, correct_N, index_N, bins)


def expected_calibration_error(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Tensor:
    """Expected calibration error: `sum_b n_b / N |accuracy_b - confidence_b|` over bins of equal width.

    It is biased upward when examples are few, and depends on the binning: compare methods by `nll` or `brier` first.

    Args:
        confidence_N: (N,) in [0, 1].
        correct_N: (N,) booleans.
        bins: number of bins `[lo, hi)`, the last one closed.

    Returns:
        A float64 scalar in [0, 1]; NaN without examples.

    Reference: Guo et al., 2017, arXiv:1706.04599, equation 3. Differs from the paper: it takes bins `(lo, hi]`.

    >>> round(float(expected_calibration_error(torch.tensor([0.9, 0.9, 0.6]), torch.tensor([True, False, True]))), 6)
    0.4
    """
    return reliability(confidence_N, correct_N, bins=bins).expected_gap


def adaptive_calibration_error(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Tensor:
    """The expected calibration error over bins of equally many examples (Nguyen and O'Connor, 2015)."""
    return equal_mass_reliability(confidence_N, correct_N, bins=bins).expected_gap


def root_mean_square_calibration_error(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Tensor:
    """`sqrt(sum_b n_b / N |accuracy_b - confidence_b|^2)` over bins of equal width: the l2 calibration error."""
    return reliability(confidence_N, correct_N, bins=bins).root_mean_square_gap


def maximum_calibration_error(confidence_N: Tensor, correct_N: Tensor, *, bins: int = NUM_BINS) -> Tensor:
    """`max_b |accuracy_b - confidence_b|` over bins of equal width (Guo et al., 2017, equation 5).

    One example alone in a bin decides it: with few examples it says little.
    """
    return reliability(confidence_N, correct_N, bins=bins).largest_gap


# as the literature abbreviates them
ece = expected_calibration_error
adaptive_ece = adaptive_calibration_error
ece_l2 = root_mean_square_calibration_error
mce = maximum_calibration_error


def _table(confidence_N: Tensor, correct_N: Tensor, index_N: Tensor, bins: int) -> Reliability:
    count_B = torch.bincount(index_N, minlength=bins).double()
    confidence_B = torch.bincount(index_N, weights=confidence_N.double(), minlength=bins)
    correct_B = torch.bincount(index_N, weights=correct_N.double(), minlength=bins)
    filled = count_B > 0
    count_B = count_B[filled]
    return Reliability(
        bins=filled.nonzero().squeeze(1),
        counts=count_B,
        confidences=confidence_B[filled] / count_B,
        accuracies=correct_B[filled] / count_B,
    )
