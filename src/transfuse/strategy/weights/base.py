"""The contract of weight rules: how much each member counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from transfuse.metrics import metric_names
from transfuse.strategy.predictions import Predictions
from transfuse.types import TaskKind

ALL_KINDS: frozenset[TaskKind] = frozenset({"classification", "multilabel", "regression"})


def kinds_with(metric: str) -> frozenset[TaskKind]:
    """The kinds of task that have this metric."""
    return frozenset(kind for kind in ALL_KINDS if metric in metric_names(kind))


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a rule found.

    Attributes:
        values_M: (M,) float64, >= 0, summing to 1.
        diagnostics: numbers for the record, such as `fusion/kkt_gap`.
    """

    values_M: Tensor
    diagnostics: Mapping[str, float] = field(default_factory=dict)


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
