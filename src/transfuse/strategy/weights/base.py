"""The contract of weight rules: how much each member counts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

from torch import Tensor

from transfuse.metrics import metric_names
from transfuse.strategy.predictions import Predictions
from transfuse.types import HyperparameterError, NonFiniteError, TaskKind

ALL_KINDS: frozenset[TaskKind] = frozenset({"classification", "multilabel", "regression"})


def kinds_with(metric: str) -> frozenset[TaskKind]:
    """The kinds of task that have this metric."""
    return frozenset(kind for kind in ALL_KINDS if metric in metric_names(kind))


def require_number(name: str, value: object, rule: str, holds: Callable[[float], bool]) -> None:
    """Raises `HyperparameterError` unless the rule's field `name` is a finite number for which `holds`."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        rule = f"a finite number {rule}"
    elif holds(float(value)):
        return
    raise HyperparameterError(f"`weights.{name}` should be {rule}. Found `weights.{name} = {value}`.")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a rule found.

    Attributes:
        values_M: (M,) float64, >= 0, summing to 1.
        diagnostics: numbers for the record, such as `fusion/kkt_gap`.
    """

    values_M: Tensor
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    def checked(self, rule: str) -> Weights:
        """The same; `NonFiniteError` or `HyperparameterError` unless they are what `values_M` promises.

        Args:
            rule: what the messages call the rule.
        """
        found = [round(value, 6) for value in self.values_M.tolist()]
        if not self.values_M.isfinite().all():
            raise NonFiniteError(f"The weights of {rule} should be finite. Found {found}.")
        if bool((self.values_M < 0).any()) or abs(float(self.values_M.sum()) - 1) > 1e-5:
            raise HyperparameterError(f"The weights of {rule} should be >= 0 and sum to 1. Found {found}.")
        return self


class WeightRule(ABC):
    """A way to weigh members. Concrete rules are frozen dataclasses of hyper-parameters.

    Class attributes:
        fitted: whether the rule reads labels (or scores) of validation examples.
        instead: what to use for kinds of task that are not in `kinds`, as typed on the command line.
    """

    fitted: ClassVar[bool]
    instead: ClassVar[str] = "strategy/weights=uniform"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that the rule can weigh members for."""
        return ALL_KINDS

    def check_count(self, num_members: int) -> None:
        """Raises `HyperparameterError` unless the rule can weigh this many members; known before training."""
        return

    @abstractmethod
    def weights(self, predictions: Predictions) -> Weights:
        """The members' weights."""
