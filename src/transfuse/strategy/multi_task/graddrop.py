"""`multi_task/graddrop`: each coordinate of the direction listens to one sign only, drawn at random.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from transfuse.strategy.multi_task.base import PerTask, of_tasks
from transfuse.strategy.multi_task.jacobian_rule import Directed, JacobianRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


@dataclass(frozen=True, kw_only=True)
class GradDrop(JacobianRule):
    """Of each coordinate, only the positive or only the negative entries are summed, by the share of their mass.

    `p = (1 + sum_t g_t / sum_t |g_t|) / 2` (0/0 = 1/2), u uniform in (0, 1): positive entries stay where p > u,
    negative ones where p < u. Draws are equal on all devices.

    Attributes:
        leak: share of a task's gradient that is always kept, in [0, 1]: one number for all tasks, or one a task.

    Example:
        >>> jacobian_TP = torch.tensor([[1.0, 3.0], [-3.0, 1.0]])
        >>> grad_drop(jacobian_TP, torch.tensor([0.5, 0.5]), torch.zeros(2))
        tensor([-3.,  4.])

    Reference:
        Chen et al. 2020, "Just Pick a Sign", 2010.06808. Differs from the paper, which drops gradients of activations:
        here, as in torchjd, those of parameters.
    """

    weighs: ClassVar[bool] = False

    leak: PerTask | float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= leak <= 1 for leak in self._leaks):
            raise HyperparameterError(f"`leak` should be in [0, 1]. Found `leak = {self.leak}`.")

    def per_task(self) -> Mapping[str, PerTask | None]:
        """`leak`, where it is one a task."""
        return {} if isinstance(self.leak, (int, float)) or not any(self._leaks) else {"leak": self.leak}

    @property
    def _leaks(self) -> tuple[float, ...]:
        if isinstance(self.leak, (int, float)):
            return (self.leak,)
        return tuple(self.leak.values() if isinstance(self.leak, Mapping) else self.leak)

    def factor(self, tasks: int) -> float:
        """The paper sums."""
        return 1.0

    def solve(self, jacobian_TP: Tensor, state: RuleState, step: StepInfo) -> Directed:
        """Drawn anew in each step."""
        uniform_P = step.uniform_P
        if uniform_P is None:
            uniform_P = torch.rand(jacobian_TP.shape[1], generator=step.generator)
        common = self._leaks[0] if not self.per_task() else 0.0  # one number, or all 0
        leak_T = torch.from_numpy(of_tasks(self.per_task().get("leak"), step.names, step.tasks, common))
        return Directed(direction_P=grad_drop(jacobian_TP, uniform_P.to(jacobian_TP), leak_T.to(jacobian_TP)))


def grad_drop(jacobian_TP: Tensor, uniform_P: Tensor, leak_T: Tensor) -> Tensor:
    """The direction (P,).

    Args:
        jacobian_TP: (T, P) one gradient a task.
        uniform_P: (P,) draws in (0, 1).
        leak_T: (T,) share of each gradient that is always kept, in [0, 1].
    """
    total_P, mass_P = torch.zeros_like(uniform_P), torch.zeros_like(uniform_P)
    for row_P in jacobian_TP:
        total_P += row_P
        mass_P += row_P.abs()
    share_P = torch.where(mass_P > 0, 0.5 + 0.5 * total_P / mass_P, 0.5)
    # a draw at the share itself counts as negative: where all have one sign, nothing is dropped
    positive_P = share_P > uniform_P
    direction_P = torch.zeros_like(uniform_P)
    for row_P, leak in zip(jacobian_TP, leak_T, strict=True):
        kept_P = torch.where((row_P > 0) == positive_P, row_P, 0.0)
        direction_P += leak * row_P + (1.0 - leak) * kept_P
    return direction_P
