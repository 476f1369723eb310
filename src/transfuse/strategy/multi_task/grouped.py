"""`multi_task/grouped`: another rule, on each layer or module by itself.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.layers import by_layer, layer_of
from transfuse.strategy.multi_task.state import RuleState
from transfuse.strategy.multi_task.wrapped_rule import WrappedRule
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.step import StepInfo

_TWO_LAYERS = ("a.weight", "b.weight")


@dataclass(frozen=True, kw_only=True)
class Grouped(WrappedRule):
    """The inner rule decides for each group of shared parameters alone: one set of weights a group.

    Tasks that agree in one layer and conflict in another are balanced where they conflict only. Where the inner rule
    guarantees that no task gets worse, that holds in each group and so in total.

    Attributes:
        inner: a rule that weights by inner products of gradients, for all parameters at once.
        by: `layer` (each module that holds parameters), or a regular expression, matched at the start of modules'
            names: those that it matches with the same text are one group, and all others another one. Without names
            of parameters (`transfuse.balance`) all are one group.

    Example:
        >>> parameters = ["backbone.0.weight", "backbone.1.weight", "backbone.7.bias"]
        >>> groups = Grouped(by="backbone.[01]").partition(parameters)
        >>> list(groups)
        ['backbone.0', 'backbone.1', '']
    """

    by: str = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.inner.partition(_TWO_LAYERS)) > 1 or len(self.inner.shown(_TWO_LAYERS)) < len(_TWO_LAYERS):
            raise HyperparameterError(
                f"`inner` should decide for all parameters at once. Found {self.inner.name}, which tells layers apart."
            )
        try:
            re.compile(self.by)
        except re.error as error:
            raise HyperparameterError(
                f"`by` should be layer or a regular expression ({error}). Found `by = {self.by}`."
            ) from error

    def partition(self, parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Group -> its parameters."""
        if self.by == "layer":
            return by_layer(parameters)
        groups: dict[str, tuple[str, ...]] = {}
        for name in parameters:
            found = re.match(self.by, layer_of(name))
            group = "" if found is None else found.group()
            groups[group] = (*groups.get(group, ()), name)
        return groups

    def solve(self, gramian_TT: Array, state: RuleState, step: StepInfo) -> tuple[Array, float]:
        """The inner rule's, of one group."""
        return self.inner.solve(gramian_TT, state, step)
