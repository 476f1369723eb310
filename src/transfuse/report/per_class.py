"""In which classes strategies differ from the reference, from the stored test predictions.

Dimensions: S seeds, M members, N examples, C classes (labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.report.comparison import Table
from transfuse.report.contests import Contest, Entry, paired
from transfuse.report.outputs import read_outputs
from transfuse.types import Task

MOST = 12  # classes that are shown
_Shares = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ByClass:
    """The strategies class by class, in the order of the leaderboard.

    Attributes:
        classes: those shown: all, or the `MOST` in which some strategy differs most from the reference.
        num_classes: of the task.
        shares: place in the leaderboard -> share of each shown class that is right, of references, the mean over seeds.
        differences: place -> difference to the reference, of the others.
    """

    classes: tuple[int, ...]
    num_classes: int
    shares: dict[int, _Shares]
    differences: dict[int, _Shares]


def by_class(contest: Contest, table: Table, task: Task) -> ByClass | None:
    """Shares of right predictions by class; None for regression, without a reference or without predictions."""
    if task.kind == "regression" or table.reference is None:
        return None
    known: dict[str, _Shares | None] = {}
    references = [entry for entry in contest.entries if entry.record.strategy == contest.reference]
    shares: dict[int, _Shares] = {}
    differences: dict[int, _Shares] = {}
    for place, row in enumerate(table.rows, 1):
        entries = [entry for entry in contest.entries if entry.label == row.strategy]
        if row.verdict == "reference":
            own = [_shares(entry, task, known) for entry in entries]
            _add(shares, place, own)
        else:
            pairs = [(_shares(a, task, known), _shares(b, task, known)) for a, b in paired(entries, references)]
            _add(differences, place, [None if a is None or b is None else a - b for a, b in pairs])
    if not shares or not differences:
        return None
    num_classes = len(next(iter(shares.values())))
    largest_C = np.nan_to_num(np.abs(np.stack(list(differences.values())))).max(axis=0)
    chosen = np.sort(np.argsort(-largest_C, kind="stable")[:MOST])
    return ByClass(
        classes=tuple(int(index) for index in chosen),
        num_classes=num_classes,
        shares={place: values[chosen] for place, values in shares.items()},
        differences={place: values[chosen] for place, values in differences.items()},
    )


def share_right(task: Task, outputs_MNC: Tensor, targets: Tensor) -> Tensor:
    """(C,) share of each class's examples that are predicted right (recall), of each label's entries (accuracy).

    The mean over members; NaN for a class without examples.
    """
    num_classes = outputs_MNC.shape[2]
    if task.kind == "multilabel":
        right_MNC = ((outputs_MNC > 0) == (targets == 1)).double()
        return right_MNC.mean(0).masked_fill(targets.isnan(), torch.nan).nanmean(0)
    labelled_N = targets >= 0
    labels_N = targets[labelled_N]
    right_N = (outputs_MNC[:, labelled_N].argmax(2) == labels_N).double().mean(0)
    counts_C = torch.bincount(labels_N, minlength=num_classes).double()
    # 0 / 0 is NaN: a class without examples
    return torch.bincount(labels_N, weights=right_N, minlength=num_classes) / counts_C


def _shares(entry: Entry, task: Task, known: dict[str, _Shares | None]) -> _Shares | None:
    key = str(entry.folder)
    if key not in known:
        stored = read_outputs(entry.folder, task.name)
        known[key] = None if stored is None else share_right(task, stored.outputs_MNC, stored.labels).numpy()
    return known[key]


def _add(found: dict[int, _Shares], place: int, by_seed: Sequence[_Shares | None]) -> None:
    """The mean over the seeds that are known."""
    known_SC = [values for values in by_seed if values is not None]
    if known_SC:
        found[place] = np.mean(known_SC, axis=0)
