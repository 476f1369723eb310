"""What is noted of a multi-task training in each epoch: weights, gradient norms, cosines, solver failures.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from transfuse.training.progress import Row

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
        gramian_TT = gramian_TT.double().cpu()
        norms_T = gramian_TT.diagonal().clamp(min=0).sqrt()
        cosines_TT = gramian_TT / (norms_T[:, None] * norms_T).clamp(min=torch.finfo(torch.float64).tiny)
        for at, task in enumerate(present):
            self._note(f"balance/{self._tasks[task]}/gradient_norm", norms_T[at].item())
            for to in range(at + 1, len(present)):
                self._note(f"balance/cos/{self._tasks[task]}/{self._tasks[present[to]]}", cosines_TT[at, to].item())
        if len(present) > 1:
            self._note("balance/conflicts", float(bool((cosines_TT < 0).any())))
        if weights_T is not None:
            inner_T = gramian_TT @ weights_T
            length = (weights_T @ inner_T).clamp(min=0).sqrt()
            self.direction(inner_T, norms_T, length)

    def direction(self, inner_T: Tensor, norms_T: Tensor, length: Tensor) -> None:
        """The smallest cosine of the direction with a task's gradient.

        Args:
            inner_T: inner products of the direction with the gradients.
            norms_T: of the gradients.
            length: of the direction.
        """
        if length > 0 and bool((norms_T > 0).any()):
            there = norms_T > 0
            self._note("balance/min_cos", (inner_T[there] / (norms_T[there] * length)).min().item())

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
