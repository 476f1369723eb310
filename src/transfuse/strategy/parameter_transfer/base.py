"""Parameter transfer: load the source model's weights, then minimize L(theta; D) on the target data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModel, Description
from transfuse.models.load_report import LoadReport
from transfuse.models.loading import load
from transfuse.models.network import Grouped, head_names
from transfuse.strategy.base import Arm, Context, FusedModel, TrainedStrategy
from transfuse.strategy.trained import finished, order_seed
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, ProblemKind

if TYPE_CHECKING:
    from transfuse.training.fit import Fitting
    from transfuse.training.plan import ClosedForm, Finish, Penalty, Phase, Plan

HEADS = ("reset", "zero", "class_mean", "linear_probe", "keep")


@dataclass(frozen=True, kw_only=True)
class ParameterTransfer(TrainedStrategy, ABC):
    """A policy of what to load and how to train it.

    Attributes:
        source: which base model to start from: its position in the pool.
        head: `reset` (a fresh one), `zero`, `class_mean` (rows from class means of the source's features),
            `linear_probe` (the optimum on them), or `keep` (the source's, where the classes are the same).
        min_coverage: smallest share of the target's backbone that must come from the source, in [0, 1].
    """

    source: int = 0
    head: str = "reset"
    min_coverage: float = 0.5

    family: ClassVar[str] = "parameter_transfer"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"transfer"})

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise HyperparameterError(f"`head` should be one of {', '.join(HEADS)}. Found `head = {self.head}`.")
        if not 0 <= self.min_coverage <= 1:
            raise HyperparameterError(
                f"`min_coverage` should be in [0, 1]. Found `min_coverage = {self.min_coverage}`."
            )

    @abstractmethod
    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """What is trained when, at which learning rates; the shares of the budget sum to 1. None: nothing is."""

    def leading(self) -> tuple[ClosedForm, ...]:
        """Work on the target's data before the first step: by default what the choice of the head asks for."""
        from transfuse.training.probe import ClassMeanHeads, ProbeHeads

        work: dict[str, tuple[ClosedForm, ...]] = {"class_mean": (ClassMeanHeads(),), "linear_probe": (ProbeHeads(),)}
        return work.get(self.head, ())

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """Terms of the loss.

        Args:
            network: with its loaded weights, before training.
            source: where they came from.
            carried: parameters whose values came from it.
        """
        return ()

    def finish(self) -> tuple[Finish, ...]:
        """Work on the trained network."""
        return ()

    def carried_state(self, state: Mapping[str, Tensor], generator: torch.Generator) -> Mapping[str, Tensor]:
        """What is loaded of the source's weights: by default themselves."""
        return state

    def plan_of(
        self,
        network: nn.Module,
        source: BaseModel,
        carried: frozenset[str],
        report: Mapping[str, Any],
        generator: torch.Generator,
    ) -> Plan:
        """The plan that trains a network whose weights `carried` came from the source."""
        from transfuse.training.plan import Plan

        penalties = self.penalties(network, source, carried)
        return Plan(
            network=network,
            phases=tuple(replace(phase, penalties=penalties) for phase in self.phases(network)),
            leading=self.leading(),
            finish=self.finish(),
            report=report,
        )

    def check(self, development: Development, base_models: Description) -> None:
        """The source must be in the pool; a kept head must mean the same classes."""
        super().check(development, base_models)
        require_source(self, self.source, base_models)
        if base_models.build is not None:
            self.phases(base_models.build())  # a network that the method cannot work on is refused here
        if self.head == "keep" and not _same_labels(development):
            raise IncompatibleStrategyError(
                f"{self.name} with head=keep needs the same classes in source and target. "
                f"Found {_labels(development.source)} and {_labels(development)}. Did you mean head=reset?"
            )

    def prepare(self, source: BaseModel, target: Development, generator: torch.Generator) -> Plan:
        """The target network with loaded weights, the load report, the phases; trains nothing."""
        network = source.architecture.build(target.input_shape, target.tasks, generator)
        heads = head_names(network)
        left_out = frozenset() if self.head == "keep" else heads
        state = {key: value for key, value in source.state.items() if key not in left_out}
        report = load(self.carried_state(state, generator), network, min_coverage=self.min_coverage)
        if self.head == "zero":
            with torch.no_grad():
                for name in heads & dict(network.named_parameters()).keys():
                    network.get_parameter(name).zero_()
        carried = frozenset(pair.target for pair in (*report.matched, *report.adapted))
        return self.plan_of(network, source, carried, _summary(report), generator)

    def start(self, context: Context) -> Arm:
        """Lays out the plan's training."""
        source = context.base_models[self.source]
        plan = self.prepare(source, context.development, context.generator("init"))
        return start_plan(context, self, source, plan)


def start_plan(context: Context, strategy: TrainedStrategy, source: BaseModel, plan: Plan) -> Arm:
    """Hands the plan that a strategy made of a source to the one module that trains them all."""
    from transfuse.training.transfer import TransferModule

    development = context.development
    module = TransferModule(plan, development.tasks, context.training, context.selection_metric)
    fitting = context.fit.begin(
        module,
        development.train,
        development.validation,
        settings=context.training,
        seed=order_seed(context),
        name=strategy.name,
        key=context.training_key(strategy.name, repr(strategy), source.description.key),
    )
    before = {plain(name): value.detach().clone() for name, value in plan.network.named_parameters()}

    def fused(fitting: Fitting) -> FusedModel:
        result = fitting.result()
        trained = sum(value.numel() for value in plan.network.parameters() if value.requires_grad)
        report = {"trainable_parameters": trained, **module.plan.report}
        for work in plan.finish:
            report |= work.apply(result.network, module.data(development.train, development.validation))
        fused = finished(context, result, {**report, "drift": drift(before, result.network)})
        looks = sum(work.looks for work in plan.leading) + sum(work.looks for work in plan.finish)
        return replace(fused, looks=fused.looks + looks)

    return Arm(fitting=fitting, finished=fused)


def plain(name: str) -> str:
    """A parameter's name without the parametrization that is trained in its place."""
    return name.replace("parametrizations.", "").removesuffix(".original")


def drift(before: Mapping[str, Tensor], network: nn.Module) -> dict[str, float]:
    """How far training moved each layer group: ||w - w0|| / ||w0||, w0 the weights before; 0 / 0 is 0."""
    groups = network.groups() if isinstance(network, Grouped) else [("all", list(before))]
    after = {name: value.detach() for name, value in network.named_parameters()}
    moved = {}
    for group, names in groups:
        way = torch.stack([(after[name] - before[name].to(after[name].device)).norm() for name in names]).norm().item()
        start = torch.stack([before[name].norm() for name in names]).norm().item()
        moved[group] = way / start if start else 0.0
    return moved


def require_source(strategy: TrainedStrategy, source: int, base_models: Description) -> None:
    """Raises unless base model `source` exists and was trained on source data (or is a given checkpoint)."""
    if not 0 <= source < len(base_models):
        raise IncompatibleStrategyError(
            f"{strategy.name} starts from base model {source}. Found {len(base_models)} base models. "
            f"Did you mean strategy.source=0?"
        )
    member = base_models.members[source]
    if member.trained_on != "source" and base_models.recipe != "checkpoints":
        raise IncompatibleStrategyError(
            f"{strategy.name} starts from a model of the source data. Found base model {source} ({member.name}), which "
            f"is trained on the target. Did you mean base_models=source?"
        )


def _summary(report: LoadReport) -> dict[str, Any]:
    """What the record keeps of a load report."""
    return {
        "coverage": report.coverage,
        "matched": [pair.target for pair in report.matched],
        "adapted": {pair.target: pair.how for pair in report.adapted},
        "dropped": {pair.target: pair.how for pair in report.dropped},
        "unexpected": list(report.unexpected),
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
