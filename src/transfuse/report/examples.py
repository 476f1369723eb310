"""Per-example test losses from the stored predictions of runs.

Dimensions: S seeds, M members, N examples, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.metrics import per_example
from transfuse.report.contests import Entry
from transfuse.report.outputs import read_outputs
from transfuse.types import PredictionError, Task

# metrics that are means over examples, so that differences of examples average to the difference of the metric
MEANS_OVER_EXAMPLES = frozenset({"nll", "brier", "accuracy", "hamming_loss", "mae"})

Losses = tuple[Tensor, NDArray[np.float64]]  # ids (N,) ascending, losses (N,)


@dataclass(frozen=True, kw_only=True)
class ExampleLosses:
    """Reads each run's predictions once.

    Attributes:
        task: what is predicted.
        metric: one of `MEANS_OVER_EXAMPLES`.
    """

    task: Task
    metric: str
    _read: dict[Path, Losses | None] = field(default_factory=dict)

    def differences(self, pairs: Sequence[tuple[Entry, Entry]]) -> NDArray[np.float64] | None:
        """(S, N) loss of the strategy minus loss of the reference, examples in the order of their ids.

        Args:
            pairs: run and reference run of each seed.

        Returns:
            None where the metric is not a mean over examples, the seeds do not share one test set, or predictions are
            missing: what is left are the seeds.
        """
        if self.metric not in MEANS_OVER_EXAMPLES or not share_test_set([entry for pair in pairs for entry in pair]):
            return None
        found = [(self._losses(entry.folder), self._losses(reference.folder)) for entry, reference in pairs]
        rows, ids = [], None
        for mine, theirs in found:
            if mine is None or theirs is None:
                return None
            ids = mine[0] if ids is None else ids
            if not (torch.equal(mine[0], ids) and torch.equal(theirs[0], ids)):
                return None
            rows.append(mine[1] - theirs[1])
        differences_SN = np.stack(rows)
        labelled_N = np.isfinite(differences_SN).all(axis=0)
        return differences_SN[:, labelled_N] if labelled_N.any() else None

    def _losses(self, folder: Path) -> Losses | None:
        if folder not in self._read:
            self._read[folder] = _losses(folder, self.task, self.metric)
        return self._read[folder]


def share_test_set(entries: Sequence[Entry]) -> bool:
    """Whether all runs were scored on one and the same test set."""
    fingerprints = {entry.record.fingerprints.get("test") for entry in entries}
    return len(fingerprints) == 1 and None not in fingerprints


def _losses(folder: Path, task: Task, metric: str) -> Losses | None:
    stored = read_outputs(folder, task.name)
    if stored is None:
        return None
    try:
        # a report about members (M, N, C) has the mean of their losses
        losses_MN = torch.stack([per_example(task, outputs, stored.labels, metric) for outputs in stored.outputs_MNC])
    except PredictionError:
        return None
    order = stored.ids_N.argsort()
    return stored.ids_N[order], losses_MN.mean(0)[order].numpy()
