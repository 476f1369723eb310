"""`multi_task/conflict_gated`: the plain sum, and another rule while tasks conflict.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.state import RuleState
from transfuse.strategy.multi_task.wrapped_rule import WrappedRule
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_MEAN = "gate"


@dataclass(frozen=True, kw_only=True)
class ConflictGated(WrappedRule):
    """The plain sum, unless the smallest cosine of two tasks' gradients is below `threshold` on an exponential mean.

    `m := decay m + (1 - decay) min_{s != t} cos(g_s, g_t)`, m starts at the first step's value; the inner rule decides
    where `m < threshold`. Its state rests while it is not asked. Under `scale=published` the sum takes the inner rule's
    scale, so that the length of the step does not jump.

    Attributes:
        inner: a rule that weights by inner products of gradients; where it tells layers apart, so does the gate.
        threshold: in [-1, 1]; -1 never asks the inner rule.
        decay: of the mean, in [0, 1); 0 looks at the present step only.

    Example:
        >>> ConflictGated().weigh(torch.tensor([[1.0, 0.5], [0.5, 4.0]]))
        tensor([1., 1.], dtype=torch.float64)
    """

    threshold: float = 0.0
    decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.threshold <= 1:
            raise HyperparameterError(f"`threshold` should be in [-1, 1]. Found `threshold = {self.threshold}`.")
        if not 0 <= self.decay < 1:
            raise HyperparameterError(f"`decay` should be in [0, 1). Found `decay = {self.decay}`.")

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """The gate, then the inner rule or the sum."""
        cosine = torch.tensor(smallest_cosine(gramian_TT), dtype=torch.float64)
        before = state.tensors.get(_MEAN)
        mean = cosine if before is None else self.decay * before + (1 - self.decay) * cosine
        state.tensors[_MEAN] = mean
        if mean.item() < self.threshold:
            return self.inner.solve(gramian_TT, state, step)
        weights_T = np.ones(len(gramian_TT))
        return weights_T / self.inner.factor(weights_T), 0.0


def smallest_cosine(gramian_TT: Array) -> float:
    """Of any two different tasks' gradients, in [-1, 1]; diagonal above 0, T >= 2."""
    norms_T = np.sqrt(np.diagonal(gramian_TT))
    cosines_TT = gramian_TT / np.outer(norms_T, norms_T)
    return float(max(-1.0, cosines_TT[~np.eye(len(norms_T), dtype=bool)].min()))
