"""Metrics of label sets, from float64 logits (N, C) and targets (N, C) of zeros, ones and NaN (unlabelled).

A label is predicted where its probability is above 0.5. Means are over labelled entries. Functions
`example_*` return (N,), `entry_*` (N, C), the others a scalar, NaN where the metric is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from transfuse.metrics.calibration import expected_calibration_error
from transfuse.metrics.classification import NLL_FLOOR
from transfuse.metrics.ranking import auroc_by_column, average_precision_by_column, f1_by_column, f1_pooled


def entry_wrong(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """1 where the prediction differs from the target, 0 where not, NaN where unlabelled."""
    wrong = ((logits_NC > 0) != (targets_NC == 1)).double()
    return wrong.masked_fill(targets_NC.isnan(), torch.nan)


def entry_nll(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """`-log max(p, 1e-12)`, p the probability given to the target; NaN where unlabelled."""
    # log p = log sigmoid(z) for a target of 1 and log sigmoid(-z) for 0
    log_p_NC = nn.functional.logsigmoid(logits_NC * (2 * targets_NC - 1))
    return -log_p_NC.clamp(min=math.log(NLL_FLOOR))


def entry_brier(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """`(sigmoid(z) - target)^2` in [0, 1]; NaN where unlabelled."""
    return (logits_NC.sigmoid() - targets_NC).square()


def example_accuracy(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """1 where all labels of an example are right (subset accuracy), else 0; NaN where none is labelled."""
    exact_N = (entry_wrong(logits_NC, targets_NC).nansum(1) == 0).double()
    return exact_N.masked_fill(targets_NC.isnan().all(1), torch.nan)


def accuracy(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean of `example_accuracy`. The share of right labels is `1 - hamming_loss`."""
    return example_accuracy(logits_NC, targets_NC).nanmean()


def hamming_loss(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Share of wrong labels."""
    return entry_wrong(logits_NC, targets_NC).nanmean()


def nll(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean of `entry_nll`: the mean binary cross-entropy over labels."""
    return entry_nll(logits_NC, targets_NC).nanmean()


def brier(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean of `entry_brier` over labels."""
    return entry_brier(logits_NC, targets_NC).nanmean()


def f1_macro(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean F1 over the labels that occur among the targets or the predictions."""
    return f1_by_column(logits_NC > 0, targets_NC == 1, targets_NC == 0).nanmean()


def f1_micro(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """F1 over all labels of all examples together."""
    return f1_pooled(logits_NC > 0, targets_NC == 1, targets_NC == 0)


def auroc(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean area under the ROC curve over the labels that have both zeros and ones."""
    return auroc_by_column(logits_NC, targets_NC == 1, targets_NC == 0).nanmean()


def average_precision(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Mean average precision over the labels that have ones."""
    return average_precision_by_column(logits_NC, targets_NC == 1, targets_NC == 0).nanmean()


def ece(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """Expected calibration error over all labels of all examples; confidence is `max(p, 1 - p)`."""
    labelled_NC = ~targets_NC.isnan()
    confidence_NC = logits_NC.abs().sigmoid()
    return expected_calibration_error(confidence_NC[labelled_NC], entry_wrong(logits_NC, targets_NC)[labelled_NC] == 0)


def _row_mean(entries: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits_NC, targets_NC: entries(logits_NC, targets_NC).nanmean(1)


METRICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "auroc": auroc,
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "f1_micro": f1_micro,
    "average_precision": average_precision,
    "hamming_loss": hamming_loss,
}
PER_EXAMPLE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": example_accuracy,
    "nll": _row_mean(entry_nll),
    "brier": _row_mean(entry_brier),
    "hamming_loss": _row_mean(entry_wrong),
}
