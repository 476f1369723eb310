"""What ensemble selection averages, and the loss of an average with one more member.

Dimensions in tensor names: M members, E events with O outcomes, F numbers a member predicts, K candidates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from transfuse.metrics import higher_is_better, score
from transfuse.metrics.classification import NLL_FLOOR
from transfuse.strategy.output_fusion.greedy_path import Losses
from transfuse.strategy.predictions import Predictions, logits_of, true_log_probs
from transfuse.types import EmptyTaskError, Task

_FACTORS = 16  # a product of 16 likelihoods >= 1e-12 does not underflow


def bag_loss(predictions: Predictions, metric: str) -> tuple[Tensor, Losses]:
    """`values_MF` and `losses` for `greedy_path`; a metric where higher is better enters as `1 - metric`."""
    if metric == "nll":
        return _nll(predictions)
    if metric in ("brier", "rmse"):
        return _squared_error(predictions, metric)
    if metric == "accuracy" and predictions.kind == "classification":
        return _accuracy(predictions)
    return _any_metric(predictions, metric)


def likelihoods(predictions: Predictions) -> Tensor:
    """(M, E) float64 `max(p_me, 1e-12)`: what members gave to what happened, floored as in the metric `nll`."""
    if not bool((predictions.outcomes_E >= 0).any()):
        raise EmptyTaskError("greedy_selection needs at least one labelled example. Found none.")
    if predictions.kind == "multilabel":
        log_p_ME = true_log_probs(predictions.log_outcomes_MEO, predictions.outcomes_E)
    else:
        labelled_N = predictions.truth >= 0
        labels_N1 = predictions.truth[labelled_N, None].long()
        # member by member: the outcomes of all together would not fit a cache
        log_p_ME = torch.stack(
            [_label_log_probs(logits_NC[labelled_N].double(), labels_N1) for logits_NC in predictions.logits_MNC]
        )
    return log_p_ME.clamp_(min=math.log(NLL_FLOOR)).exp_()


def _label_log_probs(logits_NC: Tensor, labels_N1: Tensor) -> Tensor:
    # log p_y = z_y - log sum_c exp z_c
    return logits_NC.gather(1, labels_N1).squeeze(1) - logits_NC.logsumexp(dim=1)


def _nll(predictions: Predictions) -> tuple[Tensor, Losses]:
    """Only the likelihood of what happened matters: rows of members, hence of averages, sum to 1."""
    p_ME = likelihoods(predictions)
    num_events = p_ME.shape[1]
    # log 1 = 0: the ones fill up the last product
    values_MF = pad(p_ME, (0, -num_events % _FACTORS), value=1.0)

    def losses(values_KF: Tensor, mean_F: Tensor, share: float) -> Tensor:
        # -mean_e log q_e = -1/E sum_b log prod_{e in b} q_e
        q_KF = torch.lerp(mean_F, values_KF, share)
        return -q_KF.view(len(q_KF), _FACTORS, -1).prod(dim=1).log().sum(dim=1) / num_events

    return values_MF, losses


def _squared_error(predictions: Predictions, metric: str) -> tuple[Tensor, Losses]:
    """Brier score or RMSE of the average: the length of the average error, which a rotation to M numbers keeps."""
    truth, outputs_MNC = predictions.truth, predictions.logits_MNC.double()
    if predictions.kind == "classification":
        labelled_N = truth >= 0
        target_NC = one_hot(truth[labelled_N].long(), outputs_MNC.shape[2])
        errors_MF = (outputs_MNC[:, labelled_N].softmax(dim=2) - target_NC).flatten(1)
        count = int(labelled_N.sum())
    else:
        labelled_NC = ~truth.isnan()
        values_MNC = outputs_MNC if predictions.kind == "regression" else outputs_MNC.sigmoid()
        errors_MF = values_MNC[:, labelled_NC] - truth[labelled_NC].double()
        count = int(labelled_NC.sum())
    if count == 0:
        raise EmptyTaskError("greedy_selection needs at least one labelled example. Found none.")
    # E' = QR, |E'w| = |Rw|
    rotated_MF = torch.linalg.qr(errors_MF.T, mode="r").R.T

    def losses(values_KF: Tensor, mean_F: Tensor, share: float) -> Tensor:
        mean_square_K = torch.lerp(mean_F, values_KF, share).square().sum(dim=1) / count
        return mean_square_K.sqrt() if metric == "rmse" else mean_square_K

    return rotated_MF, losses


def _accuracy(predictions: Predictions) -> tuple[Tensor, Losses]:
    labelled_N = predictions.truth >= 0
    labels_N = predictions.truth[labelled_N]
    if len(labels_N) == 0:
        raise EmptyTaskError("greedy_selection needs at least one labelled example. Found none.")
    values_MF = predictions.logits_MNC[:, labelled_N].double().softmax(dim=2).flatten(1)

    def losses(values_KF: Tensor, mean_F: Tensor, share: float) -> Tensor:
        averages = (torch.lerp(mean_F, value_F, share).view(len(labels_N), -1) for value_F in values_KF)
        return torch.stack([(average_NC.argmax(dim=1) != labels_N).double().mean() for average_NC in averages])

    return values_MF, losses


def _any_metric(predictions: Predictions, metric: str) -> tuple[Tensor, Losses]:
    kind, num_outputs = predictions.kind, predictions.logits_MNC.shape[2]
    task = predictions.task or Task(name="task", kind=kind, outputs=num_outputs)
    regression = kind == "regression"
    values_MF = (predictions.logits_MNC.double() if regression else predictions.log_outcomes_MEO.exp()).flatten(1)
    num_outcomes = num_outputs if kind == "classification" else 2

    def loss(value_F: Tensor) -> float:
        if regression:
            outputs_NC = value_F.view(-1, num_outputs)
        else:
            # no probability is 0: a logarithm must exist
            log_q_EO = value_F.view(-1, num_outcomes).clamp(min=torch.finfo(value_F.dtype).tiny).log()
            outputs_NC = logits_of(log_q_EO, kind, num_outputs)
        found = score(task, outputs_NC, predictions.truth, metric)
        return 1 - found if higher_is_better(metric) else found

    def losses(values_KF: Tensor, mean_F: Tensor, share: float) -> Tensor:
        return torch.tensor([loss(torch.lerp(mean_F, value_F, share)) for value_F in values_KF], dtype=torch.float64)

    return values_MF, losses
