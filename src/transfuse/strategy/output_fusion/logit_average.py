"""`output_fusion/logit_average`: the mean of the members' logits."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.pools import LogitPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.uniform import uniform_weights
from transfuse.types import TaskKind


@dataclass(frozen=True, kw_only=True)
class LogitAverage(OutputFusion):
    """`p = softmax(mean_m z_m)`; multi-label: the mean of log-odds. It fits nothing.

    For classes this is the geometric mean of probabilities: logits and log-probabilities differ by a constant of the
    example, which softmax removes. A member with large logits decides more than others.

    Reference:
        Genest & Zidek 1986, logarithmic opinion pool; Hinton 2002, products of experts.
    """

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return frozenset({"classification", "multilabel"})

    def combine(self, predictions: Predictions) -> LogitPool:
        """The logit pool with weights 1/M."""
        return LogitPool(predictions.kind, weights=uniform_weights(predictions.num_members))
