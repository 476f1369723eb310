"""`output_fusion/average`: the mean of the members' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.uniform import uniform_weights


@dataclass(frozen=True, kw_only=True)
class Average(OutputFusion):
    """`p = mean_m p_m` (soft vote, linear pool, deep ensemble); for regression the mean of values.

    Per example its NLL, Brier score and squared error are at most the mean of the members'. It fits nothing.

    Reference:
        Lakshminarayanan, Pritzel & Blundell 2017 (1612.01474).
    """

    def combine(self, predictions: Predictions) -> LinearPool:
        """The linear pool with weights 1/M."""
        return LinearPool(predictions.kind, weights=uniform_weights(predictions.num_members))
