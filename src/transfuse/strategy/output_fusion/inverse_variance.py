"""`output_fusion/inverse_variance`: regression members weighted by the precision of their errors.

Dimensions in tensor names: M members, N examples, C targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.gaussian import GaussianProduct
from transfuse.strategy.output_fusion.target_pool import TargetPool
from transfuse.strategy.predictions import Predictions
from transfuse.types import (
    Development,
    EmptyTaskError,
    HyperparameterError,
    IncompatibleStrategyError,
    NeedsContextError,
    TaskKind,
)

_VARIANCES = ("residual", "mse", "predicted")


def inverse_variance_weights(variances_MC: Tensor, *, floor: float = 1e-12) -> Tensor:
    """`w_m = (1 / v_m) / sum_k (1 / v_k)`, target by target; the best weights where errors are uncorrelated.

    Args:
        variances_MC: (M, C) >= 0.
        floor: smaller variances count as `floor` times the target's largest, > 0.

    Returns:
        (M, C) float64 weights, each column summing to 1; uniform where all variances are 0.

    Example:
        >>> inverse_variance_weights(torch.tensor([[1.0], [4.0]]))
        tensor([[0.8000],
                [0.2000]], dtype=torch.float64)

    Reference:
        Bates & Granger 1969, The combination of forecasts.
    """
    variances_MC = variances_MC.double()
    largest_C = variances_MC.amax(dim=0)
    relative_MC = torch.where(largest_C > 0, variances_MC / largest_C, 1.0).clamp(min=floor)
    return (1 / relative_MC) / (1 / relative_MC).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class InverseVariance(OutputFusion):
    """`y = sum_m w_m f_m`, `w_m` proportional to `1 / v_m`, v the variance of m's validation errors; by target.

    Attributes:
        variance: `residual` is the variance around the member's mean error, as if members were unbiased; `mse` counts a
            bias too; `predicted` is what members say of each example (the product of their normal densities; nothing
            is fitted), for `fuse(..., variances=...)` only: the networks of a run predict values.
        floor: smallest variance, as a share of the worst member's (`predicted`: of the largest at the example), > 0.
    """

    variance: Literal["residual", "mse", "predicted"] = "residual"
    floor: float = 1e-12

    def __post_init__(self) -> None:
        if self.variance not in _VARIANCES:
            raise HyperparameterError(
                f"`variance` should be residual, mse or predicted. Found `variance = {self.variance}`."
            )
        if not 0 < self.floor <= 1:
            raise HyperparameterError(f"`floor` should be in (0, 1]. Found `floor = {self.floor}`.")

    @property
    def fitted(self) -> bool:
        """Errors are those of labelled examples."""
        return not self.takes_variances

    @property
    def takes_variances(self) -> bool:
        """In the place of errors."""
        return self.variance == "predicted"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Real-valued targets."""
        return frozenset({"regression"})

    @property
    def instead(self) -> str:
        """The same idea for probabilities."""
        return "strategy=output_fusion/weighted_average"

    def check(self, development: Development, base_models: Description) -> None:
        """The members must say what the weights are made of."""
        super().check(development, base_models)
        if self.takes_variances:
            raise IncompatibleStrategyError(
                f"{self.name} with variance=predicted needs members that predict variances. Found networks, which "
                f"predict values only. Did you mean strategy.variance=residual, or the library's "
                f"`fuse(..., variances=...)`?"
            )

    def combine(self, predictions: Predictions) -> TargetPool | GaussianProduct:
        """The pool; unlabelled values take no part."""
        if self.takes_variances:
            if predictions.variances_MNC is None:
                raise NeedsContextError(f"{self.name} with variance=predicted needs `variances`. They are missing.")
            return GaussianProduct(floor=self.floor)
        errors_MNC = predictions.logits_MNC.double() - predictions.truth.double()
        if bool(errors_MNC[0].isnan().all(dim=0).any()):
            raise EmptyTaskError("inverse_variance needs at least one labelled example a target. Found none.")
        if self.variance == "residual":
            errors_MNC = errors_MNC - errors_MNC.nanmean(dim=1, keepdim=True)
        return TargetPool(inverse_variance_weights(errors_MNC.square().nanmean(dim=1), floor=self.floor))
