"""`output_fusion/average`: the mean of the members' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.gaussian import GaussianMixture
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.uniform import uniform_weights


@dataclass(frozen=True, kw_only=True)
class Average(OutputFusion):
    """`p = mean_m p_m` (soft vote, linear pool, deep ensemble); for regression the mean of values.

    Where regression members predict variances (`fuse(..., variances=...)`), the moments of their equal mixture.

    Per example its NLL, Brier score and squared error are at most the mean of the members'. It fits nothing.

    Reference:
        Lakshminarayanan, Pritzel & Blundell 2017 (1612.01474).
    """

    @property
    def takes_variances(self) -> bool:
        """A mixture of normal distributions has a mean and a variance."""
        return True

    def combine(self, predictions: Predictions) -> LinearPool | GaussianMixture:
        """The linear pool with weights 1/M."""
        if predictions.variances_MNC is not None:
            return GaussianMixture(predictions.num_members)
        return LinearPool(predictions.kind, weights=uniform_weights(predictions.num_members))
