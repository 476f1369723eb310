"""Parameter transfer: load the source model's weights, then minimize L(theta; D) on the target data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from transfuse.base_models.model import BaseModel, Description
from transfuse.models.load_report import LoadReport
from transfuse.models.loading import load
from transfuse.strategy.base import Arm, Context, TrainedStrategy
from transfuse.strategy.trained import finished, order_seed
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, ProblemKind

if TYPE_CHECKING:
    from transfuse.training.plan import Phase, Plan


@dataclass(frozen=True, kw_only=True)
class ParameterTransfer(TrainedStrategy, ABC):
    """A policy of what to load and how to train it.

    Attributes:
        source: which base model to start from: its position in the pool.
        head: `reset` (a fresh head) or `keep` (the source's, where the classes are the same).
        min_coverage: smallest share of the target's backbone that must come from the source, in [0, 1].
    """

    source: int = 0
    head: str = "reset"
    min_coverage: float = 0.5

    family: ClassVar[str] = "parameter_transfer"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    def __post_init__(self) -> None:
        if self.head not in ("reset", "keep"):
            raise HyperparameterError(f"`head` should be reset or keep. Found `head = {self.head}`.")
        if not 0 <= self.min_coverage <= 1:
            raise HyperparameterError(
                f"`min_coverage` should be in [0, 1]. Found `min_coverage = {self.min_coverage}`."
            )

    @abstractmethod
    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """What is trained when, at which learning rates; the shares of the budget sum to 1."""

    def check(self, development: Development, base_models: Description) -> None:
        """The source must be in the pool; a kept head must mean the same classes."""
        super().check(development, base_models)
        require_source(self, self.source, base_models)
        if self.head == "keep" and not _same_labels(development):
            raise IncompatibleStrategyError(
                f"{self.name} with head=keep needs the same classes in source and target. "
                f"Found {_labels(development.source)} and {_labels(development)}. Did you mean head=reset?"
            )

    def prepare(self, source: BaseModel, target: Development, generator: torch.Generator) -> Plan:
        """The target network with loaded weights, the load report, the phases; trains nothing."""
        from transfuse.training.plan import Plan

        network = source.architecture.build(target.input_shape, target.tasks, generator)
        state = {
            key: value for key, value in source.state.items() if self.head == "keep" or not key.startswith("heads.")
        }
        report = load(state, network, min_coverage=self.min_coverage)
        return Plan(network=network, phases=self.phases(network), report=_summary(report))

    def start(self, context: Context) -> Arm:
        """Lays out the plan's training."""
        source = context.base_models[self.source]
        return start_plan(context, self.name, self.prepare(source, context.development, context.generator("init")))


def start_plan(context: Context, name: str, plan: Plan) -> Arm:
    """Hands a plan to the one module that trains them all."""
    from transfuse.training.transfer import TransferModule

    development = context.development
    fitting = context.fit.begin(
        TransferModule(plan, development.tasks, context.training),
        development.train,
        development.validation,
        settings=context.training,
        seed=order_seed(context),
        name=name,
    )
    return Arm(fitting=fitting, finished=lambda fitting: finished(context, fitting.result(), plan.report))


def require_source(strategy: TrainedStrategy, source: int, base_models: Description) -> None:
    """Raises unless base model `source` exists and was trained on source data (or is a given checkpoint)."""
    if not 0 <= source < len(base_models):
        raise IncompatibleStrategyError(
            f"{strategy.name} starts from base model {source}. Found {len(base_models)} base models. "
            f"Did you mean strategy.source=0?"
        )


def _summary(report: LoadReport) -> dict[str, Any]:
    """What the record keeps of a load report."""
    return {
        "coverage": report.coverage,
        "matched": [pair.target for pair in report.matched],
        "adapted": {pair.target: pair.how for pair in report.adapted},
        "dropped": {pair.target: pair.how for pair in report.dropped},
        "fresh": list(report.missing),
    }


def _same_labels(development: Development) -> bool:
    return development.source is not None and _labels(development.source) == _labels(development)


def _labels(development: Development | None) -> str:
    assert development is not None, "the problem is a transfer problem"
    return "; ".join(
        f"{task.name} ({', '.join(task.classes) or f'{task.outputs} {task.kind} outputs'})"
        for task in development.tasks
    )
