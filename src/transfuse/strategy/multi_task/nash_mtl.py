"""`multi_task/nash_mtl`: the tasks bargain for the direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.fair_newton import solve_fair
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class NashMTL(GradientRule):
    """w > 0 with G w = 1 / w: the Nash bargaining solution. It does not depend on the losses' scales.

    Attributes:
        max_norm: longest direction under `scale=published`, > 0; None: no limit. `scale=sum` ignores it.
        update_every: steps between two solutions, >= 1.

    Example:
        >>> NashMTL(scale="published", max_norm=None).weigh(torch.diag(torch.tensor([1.0, 16.0])))
        tensor([1.0000, 0.2500], dtype=torch.float64)

    Reference:
        Navon et al. 2022, "Multi-Task Learning as a Bargaining Game", 2202.01017. Solved to rounding by Newton's
        method; peers stop early where norms are far apart.
    """

    max_norm: float | None = 1.0
    update_every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_norm is not None and not self.max_norm > 0:
            raise HyperparameterError(f"`max_norm` should be > 0 or null. Found `max_norm = {self.max_norm}`.")
        if self.update_every < 1:
            raise HyperparameterError(f"`update_every` should be >= 1. Found `update_every = {self.update_every}`.")

    def factor(self, weights_T: Array) -> float:
        """Weights sum to T."""
        return float(len(weights_T) / weights_T.sum())

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """The last solution where it is young enough and of the same tasks, else a new one."""
        at = step.positions
        last = state.tensors.get("weights")
        if self.update_every > 1 and step.step % self.update_every and last is not None and bool((last[at] > 0).all()):
            return last[at].numpy().copy(), 0.0
        weights_T, residual = solve_fair(gramian_TT)
        if self.update_every > 1:
            kept = torch.zeros(len(step.names), dtype=torch.float64)
            kept[at] = torch.from_numpy(weights_T)
            state.tensors["weights"] = kept
        if self.scale == "published" and self.max_norm is not None:
            length = float(np.sqrt(weights_T @ gramian_TT @ weights_T))
            weights_T = weights_T * min(1.0, self.max_norm / length)
        return weights_T, residual
