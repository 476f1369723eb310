"""Measures of a binary decision in every column: F1, area under the ROC curve, average precision.

A column is a class against the rest, or a label. `positive_NC` and `negative_NC` are booleans; an entry that is neither
is unlabelled and takes no part. All functions return one value a column, NaN where the measure is undefined.
"""

from __future__ import annotations

import torch
from torch import Tensor


def f1_by_column(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 of each column: `2 TP / (2 TP + FP + FN)`; NaN where nothing is positive and nothing is predicted so."""
    true_C, wrong_C = _counts(predicted_NC, positive_NC, negative_NC)
    return 2 * true_C / (2 * true_C + wrong_C)


def f1_pooled(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 over the entries of all columns together (micro average)."""
    true_C, wrong_C = _counts(predicted_NC, positive_NC, negative_NC)
    return 2 * true_C.sum() / (2 * true_C.sum() + wrong_C.sum())


def auroc_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """Area under the ROC curve of each column; NaN where positives or negatives are missing.

    By the Mann-Whitney statistic, ties counted half: with mid-ranks r_n and P positives among P + Q entries,
    `(sum_{n positive} r_n - P (P + 1) / 2) / (P Q)`.
    """
    num_positive_C, num_negative_C = positive_NC.sum(0).double(), negative_NC.sum(0).double()
    # Unlabelled entries come after all others, where they change no rank.
    scores_CN = scores_NC.masked_fill(~(positive_NC | negative_NC), torch.inf).T.contiguous()
    sorted_CN = scores_CN.sort(dim=1).values
    less_CN = torch.searchsorted(sorted_CN, scores_CN)
    up_to_CN = torch.searchsorted(sorted_CN, scores_CN, right=True)
    rank_CN = (less_CN + up_to_CN + 1) / 2
    rank_sum_C = (rank_CN.double() * positive_NC.T).sum(1)
    return (rank_sum_C - num_positive_C * (num_positive_C + 1) / 2) / (num_positive_C * num_negative_C)


def average_precision_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """Mean, over a column's positives, of the precision at their own score; NaN where there are no positives.

    Equals `sum_k (recall_k - recall_{k-1}) precision_k` over the distinct scores, without interpolation.
    """
    num_positive_C = positive_NC.sum(0).double()
    # Unlabelled entries come before all others: below every threshold.
    scores_CN = scores_NC.masked_fill(~(positive_NC | negative_NC), -torch.inf).T.contiguous()
    sorted_CN, order_CN = scores_CN.sort(dim=1)
    less_CN = torch.searchsorted(sorted_CN, scores_CN)
    positives_below_CN = torch.nn.functional.pad(positive_NC.T.gather(1, order_CN).double().cumsum(1), (1, 0))
    true_CN = num_positive_C[:, None] - positives_below_CN.gather(1, less_CN)
    precision_CN = true_CN / (scores_CN.shape[1] - less_CN)
    return torch.where(positive_NC.T, precision_CN, 0.0).sum(1) / num_positive_C


def _counts(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> tuple[Tensor, Tensor]:
    """True positives, and false positives plus false negatives, of each column."""
    true_C = (predicted_NC & positive_NC).sum(0).double()
    false_C = (predicted_NC & negative_NC).sum(0).double()
    missed_C = (~predicted_NC & positive_NC).sum(0).double()
    return true_C, false_C + missed_C
