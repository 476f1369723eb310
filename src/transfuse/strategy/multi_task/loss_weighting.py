"""Balancers that turn T losses into one scalar: automatic optimization, about the cost of the plain sum."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task.base import Balancing
from transfuse.types import HyperparameterError, TransfuseError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo


class InvalidLossError(TransfuseError):
    """A method that takes logarithms of losses met a negative one."""


class PerTaskParameter(nn.Module):
    """One learned number a task.

    Args:
        tasks: how many.
        initial: where they start.
    """

    def __init__(self, tasks: int, initial: float) -> None:
        super().__init__()
        self.s_T = nn.Parameter(torch.full((tasks,), initial))


@dataclass(frozen=True, kw_only=True)
class LossWeighting(Balancing, ABC):
    """A balancer that turns the T losses into one scalar, optimized by plain backpropagation.

    It weights the heads too.

    Attributes:
        probe: batches an epoch on which the tasks' gradients are compared for the record; 0: none.
    """

    kind: ClassVar[Literal["loss", "gradient", "jacobian"]] = "loss"

    probe: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale == "sum_norm":
            raise HyperparameterError("`scale` should be sum or published for a loss weighting. Found `sum_norm`.")
        if self.probe < 0:
            raise HyperparameterError(f"`probe` should be >= 0. Found `probe = {self.probe}`.")

    @property
    def learning_rate_of_state(self) -> float | None:
        """Of the state's own parameters; None where there are none."""
        return None

    def init(self, tasks: tuple[str, ...]) -> nn.Module | None:
        """What is carried from step to step; its parameters are trained along with the network. Default: nothing.

        Args:
            tasks: the names of all tasks, in order.
        """
        return None

    def factor(self, tasks: int) -> float:
        """The constant between `scale=published` and `scale=sum`."""
        return 1.0

    @abstractmethod
    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        """The scalar in the scale of the paper, with a graph.

        Args:
            losses_T: of the tasks `step.tasks`, which are labelled in this step, (T,).
            state: from `init`.
            step: where the training is.
        """

    def combine(self, losses_T: Tensor, state: nn.Module | None = None, step: StepInfo | None = None) -> Tensor:
        """The scalar to minimize, with a graph, from the losses (T,) in task order."""
        from transfuse.training.step import StepInfo

        tasks = len(losses_T)
        step = StepInfo.anonymous(tasks) if step is None else step
        state = self.init(step.names) if state is None else state
        value = self.published(losses_T, state, step)
        factor = self.factor(tasks) if self.scale == "sum" else 1.0
        return value if factor == 1.0 else factor * value

    def after_step(self, before_T: Tensor, after_T: Tensor, state: nn.Module | None, step: StepInfo) -> None:
        """Looks at the losses of one batch before and after the optimizer step; only where `looks_back`."""

    @property
    def looks_back(self) -> bool:
        """Whether `after_step` is wanted: one more forward pass a step."""
        return False


def require_positive(losses_T: Tensor, step: StepInfo, eps: float, name: str) -> None:
    """Raises `InvalidLossError` for a loss below `-eps`: its logarithm does not exist."""
    smallest = losses_T.detach().min()
    if smallest < -eps:
        task = step.tasks[int(losses_T.detach().argmin())]
        raise InvalidLossError(
            f"{name} takes logarithms of losses. Found {smallest.item():.6g} for task {task}. "
            f"Did you mean a `floor` below it, or strategy=multi_task/joint_sum?"
        )
