"""What is noted of a multi-task training in each epoch: weights, gradient norms, cosines, solver failures.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from transfuse.training.progress import Row

Array = NDArray[np.float64]

_TINY = np.finfo(np.float64).tiny
_MANY_FAILURES = 0.05  # of an epoch's steps


class SolverFailuresWarning(UserWarning):
    """A rule's equations had no solution in many steps; the plain sum took its place there."""


class BalanceRecord:
    """Means and minima over the steps of an epoch.

    Args:
        tasks: names, in order.
        name: of the training, for messages.
    """

    def __init__(self, tasks: Sequence[str], name: str) -> None:
        self._tasks = tuple(tasks)
        self._name = name
        self._warned = False
        self.clear()

    def clear(self) -> None:
        """Begins an epoch."""
        self._values: dict[str, list[float]] = {}
        self._failures = 0

    def state_dict(self) -> dict[str, object]:
        """For a pause within an epoch."""
        return {"values": {name: list(values) for name, values in self._values.items()}, "failures": self._failures}

    def load_state_dict(self, saved: dict[str, object]) -> None:
        """Goes on from there."""
        values, failures = saved["values"], saved["failures"]
        assert isinstance(values, dict) and isinstance(failures, int)
        self._values, self._failures = {name: list(each) for name, each in values.items()}, failures

    def weights(self, present: Sequence[int], weights_T: Sequence[float]) -> None:
        """Of the tasks at `present`."""
        for task, weight in zip(present, weights_T, strict=True):
            self._note(f"balance/{self._tasks[task]}/weight", weight)

    def gradients(self, present: Sequence[int], gramian_TT: Tensor, weights_T: Tensor | None) -> None:
        """Norms and cosines of the tasks' gradients, and of the direction `weights_T @ J` with each of them."""
        gramian = gramian_TT.double().cpu().numpy()  # on matrices this small half of torch's time or less
        norms_T = np.sqrt(np.maximum(gramian.diagonal(), 0.0))
        with np.errstate(all="ignore"):  # what is not finite is told elsewhere
            cosines_TT = gramian / np.maximum(np.outer(norms_T, norms_T), _TINY)
        names = [self._tasks[task] for task in present]
        norms, cosines = norms_T.tolist(), cosines_TT.tolist()
        for at, name in enumerate(names):
            self._note(f"balance/{name}/gradient_norm", norms[at])
            for other, cosine in zip(names[at + 1 :], cosines[at][at + 1 :], strict=True):
                self._note(f"balance/cos/{name}/{other}", cosine)
        if len(present) > 1:
            self._note("balance/conflicts", float((cosines_TT < 0).any()))
        if weights_T is not None:
            weights = weights_T.numpy()
            with np.errstate(all="ignore"):
                inner_T = gramian @ weights
                length = math.sqrt(max(float(weights @ inner_T), 0.0))
            self.direction(inner_T, norms_T, length)

    def direction(self, inner_T: Array, norms_T: Array, length: float) -> None:
        """The smallest cosine of the direction with a task's gradient.

        Args:
            inner_T: inner products of the direction with the gradients.
            norms_T: of the gradients.
            length: of the direction.
        """
        there = norms_T > 0
        if length > 0 and there.any():
            with np.errstate(all="ignore"):
                self._note("balance/min_cos", float((inner_T[there] / (norms_T[there] * length)).min()))

    def solver(self, *, residual: float, failed: bool, dropped: int) -> None:
        """One call of a rule."""
        self._note("solver/residual", residual)
        self._note("rule/dropped", float(dropped))
        self._failures += failed

    def row(self, *, seconds: float, steps: int) -> Row:
        """The epoch's means and minima, and `solver/failures`; then begins the next.

        Args:
            seconds: wall clock of the epoch's steps that were taken here.
            steps: their number.
        """
        row: Row = {}
        for name, values in self._values.items():
            row[name] = sum(values) / len(values)
            if name.startswith("balance/") and name != "balance/conflicts":
                row[f"{name}/minimum"] = min(values)
        if "solver/residual" in self._values:
            row["solver/failures"] = float(self._failures)
        if steps:
            row["cost/step_ms"] = 1000 * seconds / steps
        if self._failures > _MANY_FAILURES * steps and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._name}: the rule had no solution in {self._failures} of {steps} steps of an epoch; "
                f"the plain sum took its place there.",
                SolverFailuresWarning,
                stacklevel=2,
            )
        self.clear()
        return row

    def _note(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)
