"""Multi-task learning: one shared network, min over theta of sum_t L_t(theta), and ways to balance the tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from transfuse.strategy.base import Arm, Context, TrainedStrategy
from transfuse.strategy.trained import finished, order_seed
from transfuse.types import ProblemKind, Task

if TYPE_CHECKING:
    from transfuse.training.multi_task import StepInfo


@dataclass(frozen=True, kw_only=True)
class LossWeighting(TrainedStrategy, ABC):
    """A balancer that turns the T losses into one scalar, optimized by plain backpropagation.

    It weights the heads too. It never sees the network, the optimizer or the device.
    """

    family: ClassVar[str] = "multi_task"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})

    def init(self, tasks: tuple[Task, ...]) -> nn.Module | None:
        """What is carried from step to step; its parameters are trained along with the network. Default: nothing."""
        return None

    @abstractmethod
    def combine(self, losses_T: Tensor, state: nn.Module | None = None, step: StepInfo | None = None) -> Tensor:
        """The scalar to minimize, with a graph, from the losses (T,) in task order."""

    def start(self, context: Context) -> Arm:
        """One backbone with a head a task, trained on all tasks at once."""
        from transfuse.training.multi_task import MultiTaskModule

        development = context.development
        network = context.architecture.build(development.input_shape, development.tasks, context.generator("init"))
        fitting = context.fit.begin(
            MultiTaskModule(network, development.tasks, context.training, self),
            development.train,
            development.validation,
            settings=context.training,
            seed=order_seed(context),
            name=self.name,
        )
        return Arm(fitting=fitting, finished=lambda fitting: finished(context, fitting.result()))
