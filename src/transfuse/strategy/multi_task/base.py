"""Multi-task learning: one shared network, min over theta of sum_t L_t(theta), and ways to balance the tasks.

Dimensions in tensor names: T tasks, P shared parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from transfuse.base_models.model import Description
from transfuse.strategy.base import Arm, Context, Strategy, TrainedStrategy
from transfuse.strategy.trained import finished, order_seed
from transfuse.suggest import nearest
from transfuse.types import Development, EmptyTaskError, HyperparameterError, ProblemKind

if TYPE_CHECKING:
    from transfuse.training.balancer import Balancer

Array = np.ndarray[Any, np.dtype[np.float64]]
PerTask = Mapping[str, float] | Sequence[float]

_SCALES = ("sum", "published", "sum_norm")


@dataclass(frozen=True, kw_only=True)
class MultiTask(Strategy, ABC):
    """One shared network for several tasks."""

    family: ClassVar[str] = "multi_task"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"multi_task"})

    def check(self, development: Development, base_models: Description) -> None:
        """The problem must have several tasks, each with a label in the training split."""
        from transfuse.training.labels import labelled

        super().check(development, base_models)
        for task in development.tasks:
            if not bool(labelled(task, development.train.targets[task.name]).any()):
                raise EmptyTaskError(
                    f"Task {task.name} of data={development.name} has no label in the training split. Leave it out?"
                )


@dataclass(frozen=True, kw_only=True)
class Balancing(MultiTask, TrainedStrategy, ABC):
    """A balancer: it changes how the T tasks become one step, never the data, the losses' definition or the heads.

    It never sees the network, the optimizer or the device.

    Attributes:
        scale: `sum`: weights are multiplied by a constant, so that without conflict and at balance every method
            coincides with the plain sum. `published`: as in the paper. `sum_norm`, of gradient rules only: each step is
            as long as that of the plain sum.
    """

    scale: str = "sum"

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise HyperparameterError(f"`scale` should be {', '.join(_SCALES)}. Found `scale = {self.scale}`.")

    def check(self, development: Development, base_models: Description) -> None:
        """What all multi-task methods ask, and numbers for each task in the fields that hold them."""
        super().check(development, base_models)
        names = [task.name for task in development.tasks]
        for field, values in self.per_task().items():
            check_per_task(field, values, names)

    def per_task(self) -> Mapping[str, PerTask | None]:
        """The fields that hold one number a task."""
        return {}

    @abstractmethod
    def init(self, tasks: tuple[str, ...]) -> object:
        """What is carried from step to step, for the tasks of these names."""

    def start(self, context: Context) -> Arm:
        """As `arm`."""
        return self.arm(context)

    def arm(self, context: Context) -> Arm:
        """One backbone with a head a task, trained on all tasks at once."""
        from transfuse.training.multi_task import MultiTaskModule

        development = context.development
        network = context.architecture.build(development.input_shape, development.tasks, context.generator("init"))
        module = MultiTaskModule(network, development.tasks, context.training, cast("Balancer", self))
        fitting = context.fit.begin(
            module,
            development.train,
            development.validation,
            settings=context.training,
            seed=order_seed(context),
            name=self.name,
            key=context.training_key(self.name, repr(self)),
        )
        return Arm(
            fitting=fitting,
            finished=lambda fitting: finished(context, fitting.result(), diagnostics=module.diagnostics()),
        )


def check_per_task(field: str, values: PerTask | None, names: Sequence[str]) -> None:
    """Raises unless there is one finite number >= 0 a task, and not all are 0.

    Args:
        field: for the message.
        values: task -> number, or one number a task in order; None is fine.
        names: of the tasks.
    """
    if values is None:
        return
    if isinstance(values, Mapping):
        for task in values:
            if task not in names:
                raise HyperparameterError(
                    f"`{field}` names the task {task!r}, which the problem does not have.{nearest(task, names)}"
                )
        if missing := [task for task in names if task not in values]:
            raise HyperparameterError(f"`{field}` should have a number for each task. Missing: {', '.join(missing)}.")
        values = [values[task] for task in names]
    if len(values) != len(names):
        raise HyperparameterError(f"`{field}` should have {len(names)} numbers, one a task. Found {len(values)}.")
    check_weights(field, values)


def check_weights(field: str, values: Sequence[float]) -> None:
    """Raises unless all are finite and >= 0, and one is above 0."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all() or (numbers < 0).any() or not numbers.any():
        raise HyperparameterError(f"`{field}` should be finite and >= 0, and not all 0. Found `{field} = {values}`.")


def of_tasks(values: PerTask | None, names: Sequence[str], tasks: Sequence[str], default: float) -> Array:
    """The numbers of `tasks`, (T,).

    Args:
        values: task -> number, or one number for each of `names` in order, or None.
        names: of all tasks.
        tasks: those that are asked for.
        default: where there are no values.
    """
    if values is None:
        return np.full(len(tasks), default)
    if not isinstance(values, Mapping):
        values = dict(zip(names, values, strict=True))
    return np.array([values[task] for task in tasks], dtype=np.float64)
