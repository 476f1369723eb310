"""`output_fusion/geometric_mean`: the logarithmic opinion pool.

Dimensions in tensor names: M members, N examples, C classes, E events, O outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.pools import average_values
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of
from transfuse.strategy.weights.base import WeightRule
from transfuse.strategy.weights.uniform import Uniform
from transfuse.types import HyperparameterError, TaskKind


def log_pool(log_probs_MEO: Tensor, weights_M: Tensor, floor: float = 1e-12) -> Tensor:
    """`sum_m w_m log max(p_m, floor)`, (E, O): the log-probabilities of the pool up to a constant of the event.

    Args:
        log_probs_MEO: (M, E, O) log-probabilities.
        weights_M: (M,) >= 0. Their sum is 1 for a pool proper; another sum is an inverse temperature.
        floor: probabilities below it count as it, in (0, 1): without it one member could forbid an outcome alone.

    Example:
        >>> import torch
        >>> log_pool(torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]]).log(), torch.tensor([0.5, 0.5])).softmax(-1)
        tensor([[0.5000, 0.5000]])

    Reference:
        Genest & Zidek 1986; Hinton 2002.
    """
    return average_values(log_probs_MEO.clamp(min=math.log(floor)), weights_M)


class LogPool(Combiner):
    """`p_c` proportional to `prod_m max(p_mc, floor)^{w_m}`. Has `weights` (M,)."""

    def __init__(self, kind: TaskKind, *, weights: Tensor, floor: float, diagnostics: dict[str, float]) -> None:
        super().__init__(kind, weights=weights, diagnostics=diagnostics)
        self.floor = floor

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        assert self.weights is not None
        pooled_EO = log_pool(log_outcomes(logits_MNC, self.kind), self.weights, self.floor)
        return logits_of(pooled_EO, self.kind, logits_MNC.shape[2])


@dataclass(frozen=True, kw_only=True)
class LogOpinionPool(OutputFusion):
    """`p_c` proportional to `prod_m p_mc^{w_m}`, `w_m >= 0`, `sum_m w_m = 1`; multi-label: over having and lacking.

    Its NLL is at most the weighted mean of the members'. It is more confident than the linear pool.

    Attributes:
        weights: the rule that weighs members.
        floor: smallest probability that counts, in (0, 1).
    """

    weights: WeightRule = field(default_factory=Uniform)
    floor: float = 1e-12

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise HyperparameterError(f"`floor` should be in (0, 1). Found `floor = {self.floor}`.")

    @property
    def rule(self) -> WeightRule:
        """The rule that weighs the members."""
        return self.weights

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities that the rule can weigh members for."""
        return self.weights.kinds & {"classification", "multilabel"}

    @property
    def instead(self) -> str:
        """What fuses values too."""
        return "strategy=output_fusion/average"

    def combine(self, predictions: Predictions) -> LogPool:
        """The pool with the rule's weights."""
        found = self.weights.weights(predictions).checked(type(self.weights).__name__)
        return LogPool(predictions.kind, weights=found.values_M, floor=self.floor, diagnostics=dict(found.diagnostics))
