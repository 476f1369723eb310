"""`output_fusion/weighted_average`: y = sum_i w_i y_i with weights on the simplex."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.pools import LinearPool, LogitPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule
from transfuse.strategy.weights.nll_optimal import NllOptimal
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class WeightedAverage(OutputFusion):
    """`y = sum_m w_m y_m`, `w_m >= 0`, `sum_m w_m = 1`, with weights from a rule.

    Attributes:
        weights: the rule; it sees validation labels or the user's own numbers, never the level of the outputs.
        space: what is averaged: `probability` (`p = sum_m w_m p_m`) or `logit` (`z = sum_m w_m z_m`). For regression
            both are the values.
    """

    weights: WeightRule = field(default_factory=NllOptimal)
    space: Literal["probability", "logit"] = "probability"

    def __post_init__(self) -> None:
        if self.space not in ("probability", "logit"):
            raise HyperparameterError(f"`space` should be probability or logit. Found `space = {self.space}`.")

    @property
    def rule(self) -> WeightRule:
        """The rule that weighs the members."""
        return self.weights

    def combine(self, predictions: Predictions) -> Combiner:
        """The pool with the rule's weights."""
        found = self.weights.weights(predictions).checked(type(self.weights).__name__)
        pool = LinearPool if self.space == "probability" else LogitPool
        return pool(predictions.kind, weights=found.values_M, diagnostics=found.diagnostics)
