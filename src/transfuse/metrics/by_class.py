"""How each class, or label, is recognised, by scikit-learn.

A column is a class against the rest, or a label. As in `ranking`, `positive_NC` and `negative_NC` are booleans, and an
entry that is neither is unlabelled. scikit-learn is imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from transfuse.metrics.ranking import auroc_by_column


@dataclass(frozen=True, kw_only=True)
class ByClass:
    """One entry a class or label; NaN where a measure is undefined.

    Attributes:
        support_C: (C,) float64 number of positive examples.
        precision_C: (C,) share of the predicted that is positive; NaN where nothing is predicted.
        recall_C: (C,) share of the positive that is predicted; NaN where nothing is positive.
        f1_C: (C,) `2 TP / (2 TP + FP + FN)`; NaN where nothing is positive and nothing is predicted.
        auroc_C: (C,) area under the ROC curve against the rest; NaN where positives or negatives are missing.
    """

    support_C: Tensor
    precision_C: Tensor
    recall_C: Tensor
    f1_C: Tensor
    auroc_C: Tensor


def of_classes(log_probs_NC: Tensor, labels_N: Tensor) -> ByClass:
    """Each class against the rest, from log-probabilities (N, C) and labels (N,) in 0 .. C - 1."""
    num_classes = log_probs_NC.shape[1]
    positive_NC = one_hot(labels_N, num_classes).bool()
    scores_NC = log_probs_NC
    if num_classes == 2:
        # the log-odds still rank examples whose probability is 1 in floating point
        log_odds_N1 = log_probs_NC.diff(dim=1)
        scores_NC = torch.cat([-log_odds_N1, log_odds_N1], dim=1)
    return by_column(scores_NC, one_hot(log_probs_NC.argmax(1), num_classes).bool(), positive_NC, ~positive_NC)


def of_labels(logits_NC: Tensor, targets_NC: Tensor) -> ByClass:
    """Each label, from logits (N, C) and targets (N, C) of zeros, ones and NaN (unlabelled); predicted above 0."""
    return by_column(logits_NC, logits_NC > 0, targets_NC == 1, targets_NC == 0)


def by_column(scores_NC: Tensor, predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> ByClass:
    """Support, precision, recall, F1 and AUROC of every column.

    Args:
        scores_NC: (N, C) larger is surer; only their order within a column counts.
        predicted_NC: (N, C) booleans.
        positive_NC: (N, C) booleans.
        negative_NC: (N, C) booleans.

    Example:
        >>> labels = torch.tensor([[True, False], [True, False], [False, True]])
        >>> by_column(torch.eye(3)[:, :2], torch.tensor([[True, False], [False, True], [False, True]]), labels,
        ...     ~labels).recall_C
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    from sklearn.metrics import precision_recall_fscore_support

    # an entry that nobody labelled is neither a hit nor a false alarm
    predicted_NC = predicted_NC & (positive_NC | negative_NC)
    given = (positive_NC.numpy(), predicted_NC.numpy())
    columns = [1] if positive_NC.shape[1] == 1 else None  # scikit-learn takes one column for a class and its complement
    measures = precision_recall_fscore_support(*given, labels=columns, average=None, zero_division=torch.nan)
    precision_C, recall_C, f1_C, support_C = (torch.as_tensor(values).double() for values in measures)
    return ByClass(
        support_C=support_C,
        precision_C=precision_C,
        recall_C=recall_C,
        f1_C=f1_C,
        auroc_C=auroc_by_column(scores_NC, positive_NC, negative_NC),
    )


def confusion(labels_N: Tensor, predicted_N: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 confusion matrix: entry (i, j) counts examples of class i that are taken for class j.

    >>> confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    tensor([[1, 1],
            [0, 1]])
    """
    from sklearn.metrics import confusion_matrix

    return torch.as_tensor(confusion_matrix(labels_N.numpy(), predicted_N.numpy(), labels=range(num_classes)))
