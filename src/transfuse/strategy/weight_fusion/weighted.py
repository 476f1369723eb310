"""Per-tensor methods with one weight a model, and where the weights come from.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.strategy.base import Context
from transfuse.strategy.find import build
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weights.base import WeightRule
from transfuse.types import Development, HyperparameterError, IncompatibleStrategyError, NeedsContextError

# Numbers, one a model; a rule, its name, or {"rule": name, **fields}; None for the method's default.
WeightSource = tuple[float, ...] | str | Mapping[str, Any] | WeightRule | None


@dataclass(frozen=True, kw_only=True)
class Weighted(TensorFusion):
    """A method that weighs the models.

    Attributes:
        weights: one number a model, of any sign; a weight rule, its name (`softmax_score`) or a mapping with its name
            and fields (`{rule: softmax_score, temperature: 0.1}`), which weighs the models by their validation outputs;
            None: 1 each.
    """

    weights: WeightSource = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.weights, (str, Mapping)):
            object.__setattr__(self, "weights", _rule(self.weights))
        if not (self.weights is None or isinstance(self.weights, WeightRule)):
            found = tuple(float(weight) for weight in self.weights)
            if not all(map(math.isfinite, found)):
                raise HyperparameterError(f"`weights` should be finite. Found `weights = {list(found)}`.")
            object.__setattr__(self, "weights", found)

    def check(self, development: Development, base_models: Description) -> None:
        """One weight a model, or a rule that can weigh them."""
        super().check(development, base_models)
        if not isinstance(self.weights, WeightRule):
            self.model_weights(len(base_models))
            return
        self.weights.check_count(len(base_models))
        base_models.require_tasks(development, f"{self.name} with a weight rule")
        for task in development.tasks:
            if task.kind not in self.weights.kinds:
                raise IncompatibleStrategyError(
                    f"{type(self.weights).__name__} weighs models for {' and '.join(sorted(self.weights.kinds))} "
                    f"tasks. Found {task.kind} task {task.name}. Did you mean strategy.weights=uniform?"
                )

    def resolved(self, context: Context) -> Self:
        """The same method with numbers for weights: those of a rule are the mean over tasks."""
        method = super().resolved(context)
        if not isinstance(self.weights, WeightRule):
            return method
        return replace(method, weights=tuple(_rule_weights(self.weights, context).tolist()))

    def model_weights(self, num_models: int) -> tuple[float, ...]:
        """K numbers, as they were given.

        Raises:
            HyperparameterError: not one a model.
            NeedsContextError: a rule, which needs validation outputs.
        """
        if self.weights is None:
            return (1.0,) * num_models
        if isinstance(self.weights, WeightRule):
            raise NeedsContextError(
                f"The weight rule {type(self.weights).__name__} needs the models' validation outputs; state dicts "
                f"alone do not suffice. Pass numbers as `weights`, or run strategy={self.name}."
            )
        assert isinstance(self.weights, Sequence) and not isinstance(self.weights, str), "made so when it was built"
        if len(self.weights) != num_models:
            raise HyperparameterError(
                f"`weights` should have {num_models} entries (one a model). Found {len(self.weights)}."
            )
        return self.weights


def _rule(source: str | Mapping[str, Any]) -> WeightRule:
    fields = {"rule": source} if isinstance(source, str) else dict(source)
    if "rule" not in fields:
        raise HyperparameterError(f"`weights` should name its `rule`. Found the keys {', '.join(map(str, fields))}.")
    rule: WeightRule = build("weights", fields.pop("rule"), fields)
    return rule


def _rule_weights(rule: WeightRule, context: Context) -> Tensor:
    """(K,) mean over tasks of the rule's weights."""
    logits = context.base_models.logits("validation")
    targets = context.development.validation.targets
    found_TK = [
        rule.weights(Predictions(logits_MNC=logits[task.name], kind=task.kind, labels=targets[task.name], task=task))
        .checked(type(rule).__name__)
        .values_M
        for task in context.development.tasks
    ]
    return torch.stack(found_TK).mean(dim=0)
