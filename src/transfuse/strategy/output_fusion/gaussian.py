"""Regression members that say how sure they are: each prediction is a normal distribution, and so is the fused one.

Dimensions in tensor names: M members, N examples, C targets.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.pools import average_values
from transfuse.strategy.weights.uniform import uniform_weights
from transfuse.types import PredictionError


def gaussian_mixture(values_MNC: Tensor, variances_MNC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of the equal mixture: `f = mean_m f_m`, `v = mean_m v_m + mean_m (f_m - f)^2`.

    Members that disagree make it unsure, however sure they are themselves.

    Args:
        values_MNC: (M, N, C) the members' means.
        variances_MNC: (M, N, C) > 0.

    Example:
        >>> gaussian_mixture(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[1.0]], [[4.0]]]))
        (tensor([[2.]]), tensor([[3.5000]]))

    Reference:
        Lakshminarayanan, Pritzel & Blundell 2017 (1612.01474), section 2.4.
    """
    weights_M = uniform_weights(len(values_MNC))
    mean_NC = average_values(values_MNC, weights_M)
    return mean_NC, average_values(variances_MNC + (values_MNC - mean_NC).square(), weights_M)


def gaussian_product(values_MNC: Tensor, variances_MNC: Tensor, *, floor: float = 1e-12) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of the normalized product of densities: `1/v = sum_m 1/v_m`, `f = v sum_m f_m / v_m`.

    Right for members whose errors are independent; it is too sure where they are correlated. M times its variance is
    that of the logarithmic pool, which has the same mean.

    Args:
        values_MNC: (M, N, C) the members' means.
        variances_MNC: (M, N, C) > 0.
        floor: smaller variances count as `floor` times the largest of the members, > 0.

    Example:
        >>> gaussian_product(torch.tensor([[[1.0]], [[3.0]]]), torch.tensor([[[1.0]], [[4.0]]]))
        (tensor([[1.4000]]), tensor([[0.8000]]))
    """
    variances_MNC = torch.maximum(variances_MNC, floor * variances_MNC.amax(dim=0))
    smallest_NC = variances_MNC.amin(dim=0)
    # precisions in units of the largest one cannot overflow
    precisions_MNC = smallest_NC / variances_MNC
    total_NC = precisions_MNC.sum(dim=0)
    return (precisions_MNC * values_MNC).sum(dim=0) / total_NC, smallest_NC / total_NC


class GaussianCombiner(Combiner):
    """Fuses means and variances (M, N, C) of M members. `forward` has the fused means alone."""

    @abstractmethod
    def moments(self, values_MNC: Tensor, variances_MNC: Tensor) -> tuple[Tensor, Tensor]:
        """The fused mean and variance, (N, C) each."""


class GaussianMixture(GaussianCombiner):
    """The equal mixture of M normal distributions. Has `weights` (M,), all 1/M."""

    def __init__(self, num_members: int) -> None:
        super().__init__("regression", weights=uniform_weights(num_members))

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The mean of the means, (N, C)."""
        assert self.weights is not None
        return average_values(logits_MNC, self.weights)

    def moments(self, values_MNC: Tensor, variances_MNC: Tensor) -> tuple[Tensor, Tensor]:
        """`gaussian_mixture` of what is checked."""
        return gaussian_mixture(values_MNC, checked_variances(variances_MNC, values_MNC))


class GaussianProduct(GaussianCombiner):
    """The product of normal densities: weights are those of each example, hence `weights` is None."""

    def __init__(self, *, floor: float) -> None:
        super().__init__("regression")
        self.floor = floor

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """None without variances: `PredictionError`."""
        raise PredictionError("This combiner weighs members by their variances. Did you mean its `moments`?")

    def moments(self, values_MNC: Tensor, variances_MNC: Tensor) -> tuple[Tensor, Tensor]:
        """`gaussian_product` of what is checked."""
        return gaussian_product(values_MNC, checked_variances(variances_MNC, values_MNC), floor=self.floor)


def checked_variances(variances_MNC: Tensor, values_MNC: Tensor) -> Tensor:
    """The variances in the dtype of the values; `PredictionError` unless they are positive and fit the values."""
    if variances_MNC.shape != values_MNC.shape:
        raise PredictionError(
            f"`variances` should have the shape of the values, {tuple(values_MNC.shape)}. "
            f"Found {tuple(variances_MNC.shape)}."
        )
    variances_MNC = variances_MNC.to(values_MNC.dtype)
    bad = (~((variances_MNC > 0) & variances_MNC.isfinite())).nonzero()
    if len(bad):
        member, example, target = bad[0].tolist()
        raise PredictionError(
            f"`variances` should be > 0 and finite. Found {variances_MNC[member, example, target].item():g} of member "
            f"{member} at example {example}. Are they standard deviations, or logarithms?"
        )
    return variances_MNC
