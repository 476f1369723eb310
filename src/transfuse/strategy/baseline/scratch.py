"""`baseline/scratch`: the run's architecture from fresh weights on the target data, the reference of transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transfuse.strategy.base import Arm, Context, TrainedStrategy
from transfuse.strategy.trained import finished, order_seed
from transfuse.types import ProblemKind


@dataclass(frozen=True, kw_only=True)
class Scratch(TrainedStrategy):
    """argmin_theta L(theta; D) from a fresh theta: no base model is used."""

    family: ClassVar[str] = "baseline"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"single_task", "transfer"})

    def start(self, context: Context) -> Arm:
        """A fresh network, with the budget of every arm."""
        from transfuse.training.base import BaseModule

        development = context.development
        network = context.architecture.build(development.input_shape, development.tasks, context.generator("init"))
        fitting = context.fit.begin(
            BaseModule(network, development.tasks, context.training),
            development.train,
            development.validation,
            settings=context.training,
            seed=order_seed(context),
            name=self.name,
            key=context.training_key(self.name, repr(self)),
        )
        return Arm(fitting=fitting, finished=lambda fitting: finished(context, fitting.result()))
