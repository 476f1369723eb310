"""Weighted methods that divide by what they weigh: their weights cannot be negative."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class PositivelyWeighted(Weighted):
    """A method whose weights are >= 0 and not all 0."""

    def model_weights(self, num_models: int) -> tuple[float, ...]:
        """K numbers >= 0, as they were given.

        Raises:
            HyperparameterError: not one a model, one is negative, or all are 0.
            NeedsContextError: a rule, which needs validation outputs.
        """
        weights = super().model_weights(num_models)
        if min(weights) < 0 or max(weights) == 0:
            raise HyperparameterError(
                f"`weights` should be >= 0, and one of them positive. Found `weights = {list(weights)}`."
            )
        return weights
