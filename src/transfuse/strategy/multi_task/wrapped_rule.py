"""Gradient rules around another one."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transfuse.strategy.multi_task.base import Array, PerTask
from transfuse.strategy.multi_task.gradient_rule import GradientRule
from transfuse.strategy.multi_task.state import RuleState
from transfuse.strategy.multi_task.upgrad import UPGrad
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class WrappedRule(GradientRule, ABC):
    """A rule that asks another one. What all rules have (scale, heads, transform, ...) is said by the inner rule.

    Attributes:
        inner: a rule that weights by inner products of gradients.
    """

    inner: GradientRule = field(default_factory=UPGrad)
    scale: str = field(default="sum", init=False, repr=False)
    heads: str = field(default="own", init=False, repr=False)
    transform: str = field(default="none", init=False, repr=False)
    every: int = field(default=1, init=False, repr=False)
    gradient: Mapping[str, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, GradientRule):
            raise HyperparameterError(
                f"`inner` should be a rule that weights by inner products of gradients, such as multi_task/upgrad. "
                f"Found {self.inner.name}."
            )
        said: dict[str, object] = {
            "scale": self.inner.scale,
            "heads": self.inner.heads,
            "transform": self.inner.transform,
            "every": self.inner.every,
            "gradient": self.inner.gradient,
        }
        for name, value in said.items():
            object.__setattr__(self, name, value)

    def per_task(self) -> Mapping[str, PerTask | None]:
        """The inner rule's."""
        return {f"inner.{name}": values for name, values in self.inner.per_task().items()}

    def init(self, tasks: tuple[str, ...]) -> RuleState:
        """The inner rule's."""
        return self.inner.init(tasks)

    def factor(self, weights_T: Array) -> float:
        """The inner rule's."""
        return self.inner.factor(weights_T)

    def partition(self, parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The inner rule's."""
        return self.inner.partition(parameters)

    def shown(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """The inner rule's."""
        return self.inner.shown(parameters)
