"""`output_fusion/pseudo_bma`: weights by the likelihood of the validation labels."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.pools import LinearPool
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import pseudo_bma as rule
from transfuse.types import HyperparameterError, TaskKind


@dataclass(frozen=True, kw_only=True)
class PseudoBMA(OutputFusion):
    """`p = sum_m w_m p_m`, `w_m` proportional to `exp(sum_n log p_m(y_n))`, averaged over a Bayesian bootstrap.

    The same as `weighted_average` with the weight rule of this name.

    Attributes:
        bootstrap: pseudo-BMA+; without, one member gets nearly all the weight with some hundred examples or more.
        samples: of the bootstrap, >= 1.
        alpha: of its Dirichlet distribution, > 0; 1 is the Bayesian bootstrap.

    Reference:
        Yao, Vehtari, Simpson & Gelman 2018 (1704.02030).
    """

    bootstrap: bool = True
    samples: int = 1000
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise HyperparameterError(f"`samples` should be an integer >= 1. Found `samples = {self.samples}`.")
        if not 0 < self.alpha < float("inf"):
            raise HyperparameterError(f"`alpha` should be > 0 and finite. Found `alpha = {self.alpha}`.")

    @property
    def fitted(self) -> bool:
        """It reads labels."""
        return True

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with probabilities."""
        return self._rule.kinds

    @property
    def instead(self) -> str:
        """The closest method for values."""
        return "strategy=output_fusion/inverse_variance"

    def combine(self, predictions: Predictions) -> LinearPool:
        """The linear pool with the rule's weights."""
        return LinearPool(predictions.kind, weights=self._rule.weights(predictions).values_M)

    @property
    def _rule(self) -> rule.PseudoBMA:
        return rule.PseudoBMA(bootstrap=self.bootstrap, samples=self.samples, alpha=self.alpha)
