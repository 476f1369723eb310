"""What gradient rules and Jacobian rules share: manual optimization from the tasks' own gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transfuse.strategy.multi_task.base import Balancing
from transfuse.strategy.multi_task.state import RuleState
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

HEADS = ("own", "weighted")
TRANSFORMS = ("none", "log", "imtl_l")
BACKENDS = ("loop", "feature", "torchjd")
REDUCTIONS = ("jacobian", "gradient")


@dataclass(frozen=True, kw_only=True)
class Rule(Balancing, ABC):
    """A balancer that makes one direction out of the tasks' gradients g_t with respect to the shared parameters.

    Attributes:
        heads: `own`: each head gets the gradient of its own loss. `weighted`: times the task's weight.
        transform: of the losses before the rule: `none`, `log` (log L_t) or `imtl_l` (exp(s_t) L_t - s_t, s learned).
        every: the weights are computed every `every` steps; in between one weighted backward pass suffices, >= 1.
        gradient: `backend`: `loop` (one backward pass a task), `feature` (gradients at the features stand for those of
            the parameters: an approximation), `torchjd`; `reduce`, on several devices: `jacobian` (the tasks'
            gradients are averaged, then the rule decides) or `gradient` (each device decides: another algorithm).
    """

    heads: str = "own"
    transform: str = "none"
    every: int = 1
    gradient: Mapping[str, str] = field(default_factory=lambda: {"backend": "loop", "reduce": "jacobian"})

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_one("heads", self.heads, HEADS)
        _require_one("transform", self.transform, TRANSFORMS)
        if self.every < 1:
            raise HyperparameterError(f"`every` should be >= 1. Found `every = {self.every}`.")
        for key in self.gradient:
            _require_one("gradient", key, ("backend", "reduce"))
        _require_one("gradient.backend", self.backend, BACKENDS)
        _require_one("gradient.reduce", self.reduction, REDUCTIONS)
        if self.transform == "imtl_l" and self.reduction == "gradient":
            raise HyperparameterError(
                "`transform = imtl_l` learns from the losses of all devices. Found `gradient.reduce = gradient`. "
                "Did you mean gradient.reduce=jacobian?"
            )

    @property
    def backend(self) -> str:
        """Where the tasks' gradients come from."""
        return self.gradient.get("backend", "loop")

    @property
    def reduction(self) -> str:
        """What several devices average."""
        return self.gradient.get("reduce", "jacobian")

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """What is carried from step to step, for the tasks of these names. Default: nothing."""
        return RuleState(tasks)

    @abstractmethod
    def solve(self, gradients: Any, state: RuleState, step: StepInfo, /) -> Any:
        """What the method does with the tasks' gradients, in the scale of the paper."""

    def partition(self, parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Group -> names of shared parameters: the rule decides for each group alone. Default: one group of all."""
        return {"": tuple(parameters)}

    def shown(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """Of shared parameters that are decided on together, those whose gradients the rule is shown. Default: all."""
        return tuple(parameters)


def _require_one(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise HyperparameterError(f"`{name}` should be {' or '.join(allowed)}. Found `{name} = {value}`.")
