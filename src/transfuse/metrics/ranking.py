"""Measures of a binary decision in every column, by scikit-learn: F1, area under the ROC curve, average precision.

A column is a class against the rest, or a label. `positive_NC` and `negative_NC` are booleans; an entry that is neither
is unlabelled and takes no part. All functions return one value a column, NaN where the measure is undefined.
scikit-learn is imported on first use: it takes more than a second, which those who need none of these do not pay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def f1_by_column(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 of each column: `2 TP / (2 TP + FP + FN)`; NaN where nothing is positive and nothing is predicted so."""
    return _by_column(_f1, predicted_NC, positive_NC, negative_NC, (positive_NC | negative_NC).any(0))


def f1_pooled(predicted_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """F1 over the entries of all columns together (micro average)."""
    labelled_NC = positive_NC | negative_NC
    f1 = _f1(positive_NC[labelled_NC].numpy(), predicted_NC[labelled_NC].numpy())
    return torch.tensor(f1, dtype=torch.float64)


def auroc_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """Area under the ROC curve of each column, ties counted half; NaN where positives or negatives are missing."""
    from sklearn.metrics import roc_auc_score

    return _by_column(roc_auc_score, scores_NC, positive_NC, negative_NC, positive_NC.any(0) & negative_NC.any(0))


def average_precision_by_column(scores_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor) -> Tensor:
    """`sum_k (recall_k - recall_{k-1}) precision_k` of each column, not interpolated; NaN without positives."""
    from sklearn.metrics import average_precision_score

    return _by_column(average_precision_score, scores_NC, positive_NC, negative_NC, positive_NC.any(0))


def _f1(positive: Any, predicted: Any, average: str | None = "binary") -> Any:
    from sklearn.metrics import f1_score

    return f1_score(positive, predicted, average=average, zero_division=torch.nan)


def _by_column(
    measure: Callable[..., Any], given_NC: Tensor, positive_NC: Tensor, negative_NC: Tensor, defined_C: Tensor
) -> Tensor:
    """`measure(positive, given)` of the labelled entries of each column where it is defined, NaN elsewhere."""
    values_C = torch.full((positive_NC.shape[1],), torch.nan, dtype=torch.float64)
    labelled_NC = positive_NC | negative_NC
    columns = defined_C.nonzero().flatten()
    if labelled_NC.all() and len(columns) > 1:  # scikit-learn checks its input once, not once a column
        measured = measure(positive_NC[:, columns].numpy(), given_NC[:, columns].numpy(), average=None)
        values_C[columns] = torch.as_tensor(measured).double()
        return values_C
    for column in columns.tolist():
        labelled_N = labelled_NC[:, column]
        positive_N, given_N = positive_NC[labelled_N, column], given_NC[labelled_N, column]
        values_C[column] = float(measure(positive_N.numpy(), given_N.numpy()))
    return values_C
