"""Balancers that need only the Gramian of the tasks' gradients.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.rule import Rule
from transfuse.strategy.multi_task.state import RuleState

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_ABSENT = 1e-12  # a gradient this much shorter than the longest says nothing


class NoSolutionError(Exception):
    """The rule's equations have no solution for this Gramian; the plain sum takes its place for one step."""


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """What a rule found.

    Attributes:
        weights_T: (T,) float64: the direction is `w J`.
        residual: how far the solver is from the rule's equations, relative; 0 for closed forms.
        failed: whether the plain sum took the rule's place.
        dropped: tasks that were left out because their gradient vanishes.
    """

    weights_T: Array
    residual: float = 0.0
    failed: bool = False
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class GradientRule(Rule, ABC):
    """d = w J, where the weights w depend on the gradients' inner products `G = J J^T` alone."""

    kind: ClassVar[Literal["loss", "gradient", "jacobian"]] = "gradient"

    @abstractmethod
    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """Weights in the scale of the paper, and the relative residual of the solver (0 for closed forms).

        Args:
            gramian_TT: (T, T) float64, T >= 2, finite, no zero row; belongs to the caller.
            state: from `init`, changed in place.
            step: `step.tasks` are the rows.

        Raises:
            NoSolutionError: there are no such weights. (`numpy.linalg.LinAlgError` means the same.)
        """

    @abstractmethod
    def factor(self, weights_T: Array) -> float:
        """The constant between `scale=published` and `scale=sum`, given the published weights."""

    def weigh(self, gramian_TT: Tensor, state: RuleState | None = None, step: StepInfo | None = None) -> Tensor:
        """Weights of the direction `w J`.

        Args:
            gramian_TT: (T, T) inner products of the tasks' gradients; not changed.
            state: from `init`, changed in place; None: a fresh one.
            step: where the training is; None: the first step of tasks without names.

        Returns:
            (T,) float64 on the CPU.
        """
        return torch.from_numpy(self.weighing(gramian_TT, state, step).weights_T)

    def weighing(self, gramian_TT: Tensor, state: RuleState | None = None, step: StepInfo | None = None) -> Weighing:
        """`weigh`, and how well it went; where it did not, the plain sum takes the rule's place."""
        from transfuse.training.step import StepInfo

        gramian = gramian_TT.detach().cpu().double().numpy().copy()
        step = StepInfo.anonymous(len(gramian)) if step is None else step
        state = self.init(step.names) if state is None else state
        if not np.isfinite(gramian).all():
            return Weighing(weights_T=np.ones(len(gramian)), failed=True)
        lengths = np.sqrt(np.maximum(np.diagonal(gramian), 0.0))
        kept = np.flatnonzero(lengths > _ABSENT * lengths.max())
        dropped = len(gramian) - len(kept)
        weights_T = np.zeros(len(gramian))
        if len(kept) <= 1:
            weights_T[kept] = 1.0
            return Weighing(weights_T=weights_T, dropped=dropped)
        inner = gramian[np.ix_(kept, kept)] if dropped else gramian
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise"):
                solved, residual = self.solve(inner.copy(), state, step.restricted(kept.tolist()))
                solved = self._scaled(solved, inner)
            if not np.isfinite(solved).all():
                raise NoSolutionError
        except (NoSolutionError, np.linalg.LinAlgError, FloatingPointError):
            weights_T[kept] = 1.0
            return Weighing(weights_T=weights_T, failed=True, dropped=dropped)
        weights_T[kept] = solved
        return Weighing(weights_T=weights_T, residual=residual, dropped=dropped)

    def _scaled(self, weights_T: Array, gramian_TT: Array) -> Array:
        if self.scale == "published":
            return weights_T
        if self.scale == "sum":
            return weights_T * self.factor(weights_T)
        length = weights_T @ gramian_TT @ weights_T
        # 0 is kept: a stationary point stays one
        return weights_T * math.sqrt(max(gramian_TT.sum(), 0.0) / length) if length > 0 else weights_T
