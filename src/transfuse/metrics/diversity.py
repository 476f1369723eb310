"""How members of a pool differ: pair by pair, and all together.

Dimensions in tensor names: M members, E events (examples, or entries of label sets). `predicted_ME` are labels,
`correct_ME` booleans (whether a member is right). Of two members, a is the share of events on which both are right,
b and c the shares on which only the first or only the second is, d that on which both are wrong. All measures are
symmetric (M, M) float64 matrices; an entry is NaN where the measure is undefined, which is never an error.

Reference: Kuncheva and Whitaker, Measures of diversity in classifier ensembles, Machine Learning 51, 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def disagreement(predicted_ME: Tensor) -> Tensor:
    """The share of events on which two members predict different labels, in [0, 1].

    >>> disagreement(torch.tensor([[0, 1, 2, 2], [0, 2, 1, 2]]))[0, 1]
    tensor(0.5000, dtype=torch.float64)
    """
    return torch.stack([(row_E != predicted_ME).double().mean(1) for row_E in predicted_ME])


def oracle_disagreement(correct_ME: Tensor) -> Tensor:
    """The share of events on which exactly one of two members is right: `b + c`, in [0, 1].

    Equal to `disagreement` for two classes; smaller with more, as two wrong labels may differ.
    """
    _, b, c, _ = _counts(correct_ME)
    return (b + c) / correct_ME.shape[1]


def double_fault(correct_ME: Tensor) -> Tensor:
    """The share of events on which both members are wrong: `d`, in [0, 1]. The diagonal holds error rates."""
    *_, d = _counts(correct_ME)
    return d / correct_ME.shape[1]


def q_statistic(correct_ME: Tensor) -> Tensor:
    """Yule's `Q = (ad - bc) / (ad + bc)` in [-1, 1]: 0 for independent members, 1 where errors come together.

    NaN where `ad + bc = 0`, as with a member that is always right.

    >>> q_statistic(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0]]).bool())[0, 1]
    tensor(0.3333, dtype=torch.float64)
    """
    a, b, c, d = _counts(correct_ME)
    return (a * d - b * c) / (a * d + b * c)


def error_correlation(correct_ME: Tensor) -> Tensor:
    """Phi `(ad - bc) / sqrt((a + b)(a + c)(b + d)(c + d))`: Pearson's correlation of the members' errors, in [-1, 1].

    NaN where a member is always right or always wrong.
    """
    a, b, c, d = _counts(correct_ME)
    # roots before products: counts to the fourth power do not fit float64's integers
    return (a * d - b * c) / (((a + b) * (c + d)).sqrt() * ((a + c) * (b + d)).sqrt())


def kappa(correct_ME: Tensor) -> Tensor:
    """Agreement beyond chance on being right: `2 (ad - bc) / ((a + b)(b + d) + (a + c)(c + d))`, at most 1.

    NaN where both members are always right, or both always wrong.
    """
    a, b, c, d = _counts(correct_ME)
    return 2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))


def cohen_kappa(predicted_ME: Tensor, num_labels: int) -> Tensor:
    """Cohen's kappa of the predicted labels: `(p_o - p_e) / (1 - p_e)`, at most 1.

    `p_o` is the share of equal labels, `p_e = sum_c p_c q_c` that of two members who draw from their own shares of
    labels. NaN where both members always give the same one label.

    Args:
        predicted_ME: (M, E) int64 labels.
        num_labels: of which there are, >= 1.

    Reference: Cohen, A coefficient of agreement for nominal scales, 1960.
    """
    count_ML = _label_counts(predicted_ME, num_labels)
    num_events = predicted_ME.shape[1]
    chance_MM = count_ML @ count_ML.T / num_events**2
    return (1 - disagreement(predicted_ME) - chance_MM) / (1 - chance_MM)


def fleiss_kappa(predicted_ME: Tensor, num_labels: int) -> float:
    """Fleiss' kappa: agreement beyond chance of all members at once, at most 1.

    `(P - P_e) / (1 - P_e)`: P is the mean over events of the share of member pairs that agree, `P_e = sum_c p_c^2` with
    the shares p_c of labels over all members and events. NaN for one member, or where only one label occurs.

    Args:
        predicted_ME: (M, E) int64 labels; `correct_ME.long()` gives the measure of correctness.
        num_labels: of which there are, >= 1.

    Reference: Fleiss, Measuring nominal scale agreement among many raters, 1971.

    >>> round(fleiss_kappa(torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]]), 2), 4)
    0.4667
    """
    num_members, num_events = predicted_ME.shape
    if num_members < 2 or num_events == 0:
        return torch.nan
    share_L = _label_counts(predicted_ME, num_labels).sum(0) / (num_members * num_events)
    chance = float(share_L.square().sum())
    agreement = 1 - float(disagreement(predicted_ME).sum()) / (num_members * (num_members - 1))
    return (agreement - chance) / (1 - chance) if chance < 1 else torch.nan


def residual_correlation(residuals_ME: Tensor) -> Tensor:
    """Pearson's correlation of real-valued errors, in [-1, 1]; NaN where a member's error is constant.

    Averaging many members whose errors have mean 0, equal variance and this correlation leaves this share of the
    squared error.
    """
    centred_ME = residuals_ME.double() - residuals_ME.double().mean(1, keepdim=True)
    constant_M = (residuals_ME == residuals_ME[:, :1]).all(1)
    centred_ME = centred_ME.masked_fill(constant_M[:, None], 0.0)
    norm_M = centred_ME.square().sum(1).sqrt()
    return (centred_ME @ centred_ME.T / (norm_M[:, None] * norm_M)).clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class PairMean:
    """The mean of a measure over pairs of members.

    Attributes:
        value: over the pairs where the measure is defined; NaN without any.
        undefined: number of pairs that are left out.
    """

    value: float
    undefined: int


def mean_over_pairs(measure_MM: Tensor) -> PairMean:
    """The mean over the `M (M - 1) / 2` pairs of different members; undefined (NaN) pairs are left out and counted.

    >>> mean_over_pairs(torch.tensor([[0.0, 0.2, torch.nan], [0.2, 0.0, 0.4], [torch.nan, 0.4, 0.0]])).undefined
    1
    """
    first_P, second_P = torch.triu_indices(len(measure_MM), len(measure_MM), offset=1)
    pairs_P = measure_MM[first_P, second_P].double()
    return PairMean(value=float(pairs_P.nanmean()), undefined=int(pairs_P.isnan().sum()))


def _counts(correct_ME: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, b, c, d as numbers of events, which float64 holds exactly: what is 0 in a denominator is 0."""
    right_ME = correct_ME.double()
    wrong_ME = 1 - right_ME
    b = right_ME @ wrong_ME.T
    return right_ME @ right_ME.T, b, b.T, wrong_ME @ wrong_ME.T


def _label_counts(predicted_ME: Tensor, num_labels: int) -> Tensor:
    """(M, L) float64: how often each member gives each label."""
    counts = [torch.bincount(row_E, minlength=num_labels) for row_E in predicted_ME.long()]
    return torch.stack(counts).double()
