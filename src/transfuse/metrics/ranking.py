"""Measures of a binary decision in every column, by scikit-learn: F1, area under the ROC curve, average precision.

A column is a class against the rest, or a label. `positive_NC` and `negative_NC` are booleans; an entry that is neither
is unlabelled and takes no part. All functions return one value a column, NaN where the measure is undefined.
scikit-learn is imported on first use: it takes half a second, which those who need none of these do not pay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def f1_by_column(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 of each column: `2 TP / (2 TP + FP + FN)`; NaN where nothing is positive and nothing is predicted so."""
    from sklearn.metrics import f1_score

    labelled_NC = positive_NC | negative_NC
    if labelled_NC.all() and positive_NC.shape[1] > 1:
        values = f1_score(positive_NC.numpy(), predicted_NC.numpy(), average=None, zero_division=torch.nan)
        return torch.as_tensor(values, dtype=torch.float64)
    return _by_column(_f1, predicted_NC, positive_NC, labelled_NC, labelled_NC.any(0))


def f1_pooled(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 over the entries of all columns together (micro average)."""
    labelled_NC = positive_NC | negative_NC
    return torch.tensor(_f1(positive_NC[labelled_NC], predicted_NC[labelled_NC]), dtype=torch.float64)


def auroc_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """Area under the ROC curve of each column, ties counted half; NaN where positives or negatives are missing."""
    from sklearn.metrics import roc_auc_score

    def area(positive_N: Tensor, scores_N: Tensor) -> float:
        return float(roc_auc_score(positive_N.numpy(), scores_N.numpy()))

    defined_C = positive_NC.any(0) & negative_NC.any(0)
    return _by_column(area, scores_NC, positive_NC, positive_NC | negative_NC, defined_C)


def average_precision_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """`sum_k (recall_k - recall_{k-1}) precision_k` of each column, not interpolated; NaN without positives."""
    from sklearn.metrics import average_precision_score

    def precision(positive_N: Tensor, scores_N: Tensor) -> float:
        return float(average_precision_score(positive_N.numpy(), scores_N.numpy()))

    return _by_column(precision, scores_NC, positive_NC, positive_NC | negative_NC, positive_NC.any(0))


def _f1(positive_N: Tensor, predicted_N: Tensor) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(positive_N.numpy(), predicted_N.numpy(), zero_division=torch.nan))


def _by_column(
    measure: Callable[[Tensor, Tensor], float],
    given_NC: Tensor,
    positive_NC: Tensor,
    labelled_NC: Tensor,
    defined_C: Tensor,
) -> Tensor:
    """`measure(positive, given)` of the labelled entries of each column where it is defined, NaN elsewhere."""
    values = [
        measure(positive_N[labelled_N], given_N[labelled_N]) if defined else torch.nan
        for given_N, positive_N, labelled_N, defined in zip(
            given_NC.T, positive_NC.T, labelled_NC.T, defined_C.tolist(), strict=True
        )
    ]
    return torch.tensor(values, dtype=torch.float64)
