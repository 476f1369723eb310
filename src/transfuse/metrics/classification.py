"""Metrics of class predictions, from float64 log-probabilities (N, C) and labels (N,) in 0 .. C - 1.

Functions `example_*` return (N,), one value an example; the others a scalar, NaN where the metric is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from transfuse.metrics.calibration import expected_calibration_error
from transfuse.metrics.ranking import auroc_by_column, f1_by_column

NLL_FLOOR = 1e-12


def example_accuracy(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """1 where the most likely class, the first on ties, is the label, else 0."""
    return (log_probs_NC.argmax(1) == labels_N).double()


def example_nll(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Negative log-likelihood `-log max(p_label, 1e-12)` in nats."""
    return -log_probs_NC.gather(1, labels_N[:, None]).squeeze(1).clamp(min=math.log(NLL_FLOOR))


def example_brier(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Brier score `sum_c (p_c - [c = label])^2` in [0, 2], the sum over both classes for two of them too."""
    return (log_probs_NC.exp() - _one_hot(labels_N, log_probs_NC)).square().sum(1)


def accuracy(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of `example_accuracy`."""
    return example_accuracy(log_probs_NC, labels_N).mean()


def nll(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of `example_nll`."""
    return example_nll(log_probs_NC, labels_N).mean()


def nll_floored(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Number of examples whose label has a probability below 1e-12, at which `nll` counts them."""
    return (log_probs_NC.gather(1, labels_N[:, None]) < math.log(NLL_FLOOR)).sum()


def brier(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean of `example_brier`."""
    return example_brier(log_probs_NC, labels_N).mean()


def f1_macro(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Mean F1 over the classes that occur among the labels or the predictions."""
    positive_NC = _one_hot(labels_N, log_probs_NC).bool()
    predicted_NC = _one_hot(log_probs_NC.argmax(1), log_probs_NC).bool()
    return f1_by_column(predicted_NC, positive_NC, ~positive_NC).nanmean()


def auroc(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Area under the ROC curve: of class 1 where there are two, else the mean over classes against the rest.

    Classes without examples, or without others, are left out of the mean.
    """
    positive_NC = _one_hot(labels_N, log_probs_NC).bool()
    scores_NC = log_probs_NC
    if log_probs_NC.shape[1] == 2:
        # The log-odds still rank examples whose probability is 1 in floating point.
        scores_NC, positive_NC = log_probs_NC.diff(dim=1), positive_NC[:, 1:]
    return auroc_by_column(scores_NC, positive_NC, ~positive_NC).nanmean()


def ece(log_probs_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Expected calibration error of the most likely class over 15 bins of equal width."""
    confidence_N, predicted_N = log_probs_NC.max(1)
    return expected_calibration_error(confidence_N.exp(), predicted_N == labels_N)


METRICS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "auroc": auroc,
    "nll": nll,
    "brier": brier,
    "ece": ece,
}
PER_EXAMPLE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": example_accuracy,
    "nll": example_nll,
    "brier": example_brier,
}


def _one_hot(labels_N: Tensor, like_NC: Tensor) -> Tensor:
    return nn.functional.one_hot(labels_N, like_NC.shape[1])
