"""Whether the strategies' confidences agree with how often they are right, from the stored test predictions.

Dimensions: M members, N examples, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.metrics import Reliability, reliability
from transfuse.report.comparison import Row, Table
from transfuse.report.contests import Contest, Entry
from transfuse.report.diversity import MEMBERS
from transfuse.report.outputs import read_outputs
from transfuse.types import Task

_MOST = 4  # panels that a figure has room for


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One strategy's reliability.

    Attributes:
        place: in the leaderboard, from 1.
        label: of the strategy.
        table: over the test examples of all seeds together.
        ece: expected calibration error, the mean over seeds.
    """

    place: int
    label: str
    table: Reliability
    ece: float


def calibrated(contest: Contest, table: Table, task: Task) -> list[Calibrated]:
    """The reliability of the reference, of the best strategy and of the best of other families, best first.

    Strategies without stored predictions are left out; none is left for a regression task.
    """
    if task.kind == "regression":
        return []
    found = []
    for place in _chosen(table.rows):
        row = table.rows[place - 1]
        pooled = _pooled([entry for entry in contest.entries if entry.label == row.strategy], task)
        if pooled is not None:
            confidence_N, correct_N, ece = pooled
            entry = reliability(confidence_N, correct_N)
            found.append(Calibrated(place=place, label=row.strategy, table=entry, ece=ece))
    return found


def _chosen(rows: Sequence[Row]) -> list[int]:
    """Places of at most four strategies: reference, best, then the best of each family not seen yet, then the next."""
    # a report about members is no predictor
    places = [place for place, row in enumerate(rows, 1) if not row.strategy.startswith(MEMBERS)]
    wanted = [place for place in places if rows[place - 1].verdict == "reference"][:1] + places[:1]
    families = {rows[place - 1].family for place in wanted}
    for place in places:
        if rows[place - 1].family not in families:
            families.add(rows[place - 1].family)
            wanted.append(place)
    return sorted(list(dict.fromkeys([*wanted, *places]))[:_MOST])


def _pooled(entries: Sequence[Entry], task: Task) -> tuple[Tensor, Tensor, float] | None:
    parts = []
    for entry in entries:
        stored = read_outputs(entry.folder, task.name)
        if stored is not None:
            parts.append(confidences(task, stored.outputs_MNC[0], stored.labels))
    if not parts:
        return None
    confidence_N, correct_N = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    # sum_s n_s ECE_s / sum_s n_s, the seeds' test sets being of one size
    errors = [float(reliability(confidence, correct).expected_gap) for confidence, correct in parts]
    return confidence_N, correct_N, sum(errors) / len(errors)


def confidences(task: Task, outputs_NC: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of each decision and whether it was right, of labelled examples (labels, with several each).

    Args:
        task: a classification or multilabel task.
        outputs_NC: (N, C) logits.
        targets: (N,) class indices, -1 for unlabelled; (N, C) zeros and ones, NaN for unlabelled.

    Returns:
        float64 in [0, 1] and booleans, both (K,).
    """
    if task.kind == "multilabel":
        labelled_NC = ~targets.isnan()
        right_NC = (outputs_NC > 0) == (targets == 1)
        # max(p, 1 - p) of p = sigmoid(z)
        return outputs_NC.double().abs().sigmoid()[labelled_NC], right_NC[labelled_NC]
    labelled_N = targets >= 0
    confidence_N, predicted_N = outputs_NC[labelled_N].double().softmax(1).max(1)
    return confidence_N, predicted_N == targets[labelled_N]
