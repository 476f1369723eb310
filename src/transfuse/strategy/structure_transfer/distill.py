"""`structure_transfer/distill`: a student of any size learns from the source's logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from transfuse.base_models.model import BaseModel, Description
from transfuse.models.features import require_network
from transfuse.strategy.base import Context
from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.net2wider import Net2Wider
from transfuse.strategy.structure_transfer.resizing import count, target_network
from transfuse.strategy.structure_transfer.weight_selection import WeightSelection
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError

if TYPE_CHECKING:
    from transfuse.training.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Distill(StructureTransfer):
    """`min alpha L + (1 - alpha) T^2 KL(softmax(teacher / T) || softmax(student / T))`, on the target's inputs.

    Attributes:
        student: sizes of the student by the source model's own fields (`{channels: [4, 8]}`); None: the source's.
        alpha: weight of the labels, in [0, 1].
        temperature: T > 0.
        init: of the student: `fresh`, `select` (units of a wider source) or `widen` (copies of a narrower one's).
        teacher: `source`, where source and target have the same classes; `source_finetuned`: with heads that are
            linear probes on the target.

    Reference:
        Hinton et al. 2015, "Distilling the knowledge in a neural network", 1503.02531.
    """

    student: Mapping[str, Sequence[int] | int] | None = None
    alpha: float = 0.5
    temperature: float = 4.0
    init: str = "fresh"
    teacher: str = "source_finetuned"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise HyperparameterError(f"`alpha` should be in [0, 1]. Found `alpha = {self.alpha}`.")
        if not 0 < self.temperature < float("inf"):
            raise HyperparameterError(f"`temperature` should be > 0. Found `temperature = {self.temperature}`.")
        if self.init not in ("fresh", "select", "widen"):
            raise HyperparameterError(f"`init` should be fresh, select or widen. Found `init = {self.init}`.")
        if self.teacher not in ("source", "source_finetuned"):
            raise HyperparameterError(
                f"`teacher` should be source or source_finetuned. Found `teacher = {self.teacher}`."
            )

    def check(self, development: Development, base_models: Description) -> None:
        """Logits are taught: the tasks are classifications, of the teacher's classes."""
        super().check(development, base_models)
        other = [task.name for task in development.tasks if task.kind != "classification"]
        if other:
            raise IncompatibleStrategyError(
                f"{self.name} teaches class probabilities. Found {other[0]} of another kind."
            )
        assert development.source is not None, "the problem is a transfer problem"
        spaces = [
            [(task.name, task.outputs, task.classes) for task in each.tasks]
            for each in (development, development.source)
        ]
        if self.teacher == "source" and spaces[0] != spaces[1]:
            raise IncompatibleStrategyError(
                f"teacher=source needs the same classes in source and target. Found {spaces[1]} and {spaces[0]}. "
                "Did you mean teacher=source_finetuned?"
            )

    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """The student before training."""
        if self.init == "select":
            return WeightSelection(factor=1.0, widths=self.student).grow(source, target, generator)
        if self.init == "widen":
            return Net2Wider(factor=1.0, widths=self.student).grow(source, target, generator)
        architecture = source.architecture.resized(**(self.student or {}))
        network = architecture.build(target.input_shape, target.tasks, generator)
        return Grown(network=network, report={"parameters_after": count(network)}, carries=False)

    def plan(self, context: Context) -> Plan:
        """The student's plan with the teacher's term in every phase."""
        from transfuse.training.distilling import FitTeacher, Teacher

        plan = super().plan(context)
        if self.alpha == 1:
            return plan
        source, target = context.base_models[self.source], context.development
        leading: tuple[Any, ...] = plan.leading
        if self.teacher == "source":
            network = source.network()
        else:
            network = target_network(source.architecture, source.state, target, context.generator("teacher"))
            leading = (*leading, FitTeacher(network=network))
        require_network(network, self.name)
        tasks = tuple(task.name for task in target.tasks)
        term = Teacher(network, tasks, 1 - self.alpha, self.temperature)
        phases = tuple(
            replace(phase, penalties=(*phase.penalties, term), loss_factor=self.alpha) for phase in plan.phases
        )
        return replace(plan, phases=phases, leading=leading)
