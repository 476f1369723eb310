"""`weight_fusion/karcher`: the Riemannian mean of the models' directions, at their mean norm.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.shares import positive_shares
from transfuse.strategy.weight_fusion.spherical import (
    at_mean_norm,
    exponential,
    length,
    mean_direction,
    mean_logarithm,
)
from transfuse.strategy.weight_fusion.vectors import Coefficients, combine, cosines, grams
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError


def karcher_coefficients(gram_KK: Tensor, shares_K: Tensor, *, max_iter: int = 50, tol: float = 1e-9) -> Tensor:
    """Coefficients of the Karcher mean of the unit vectors, times the weighted mean norm.

    Unit vectors, tangents and iterates all lie in the span of the models: the iteration
    `u <- exp_u(sum_i w_i log_u(u_i))` runs on K coefficients.

    Args:
        gram_KK: inner products of the models, float64.
        shares_K: weights that sum to 1.
        max_iter: most iterations.
        tol: the tangent's length, in radians, at which it ends.

    Returns:
        (K,) float64; the weights themselves where the unit vectors cancel.

    Example:
        >>> karcher_coefficients(torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([0.5, 0.5]).double())
        tensor([1.0607, 0.5303], dtype=torch.float64)
    """
    point_K = mean_direction(gram_KK, shares_K)
    if point_K is None:
        return shares_K
    directed_K = shares_K.where(gram_KK.diagonal() > 0, 0.0)
    directed_K = directed_K / directed_K.sum()
    cosines_KK = cosines(gram_KK)
    for _ in range(max_iter):
        tangent_K = mean_logarithm(cosines_KK, directed_K, point_K)
        if length(cosines_KK, tangent_K) < tol:
            break
        point_K = exponential(cosines_KK, point_K, tangent_K)
    return at_mean_norm(gram_KK, shares_K, point_K)


@dataclass(frozen=True, kw_only=True)
class KarcherMean(Weighted):
    """`x = u * sum_i w_i |x_i|`, u the unit vector with least `sum_i w_i angle(u, x_i)^2`.

    Per tensor. Vectors of zeros have no direction, but their share in the mean norm; where all directions cancel, the
    result is the weighted mean.

    Attributes:
        weights: see `Weighted`, >= 0, divided by their sum; None: 1 each.
        max_iter: >= 1, most iterations.
        tol: > 0, the length of a step, in radians, at which the iteration ends.

    Example:
        >>> KarcherMean().merged([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 3.0])}])
        {'w': tensor([1.4142, 1.4142])}

    Reference:
        Karcher 1977, "Riemannian center of mass and mollifier smoothing"; Goddard et al. 2024 (2403.13257), "karcher".
    """

    size: ClassVar[int] = WIDE

    max_iter: int = 50
    tol: float = 1e-9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_iter < 1:
            raise HyperparameterError(f"`max_iter` should be >= 1. Found `max_iter = {self.max_iter}`.")
        if not self.tol > 0:
            raise HyperparameterError(f"`tol` should be > 0. Found `tol = {self.tol}`.")

    def survey(self, blocks: Blocks) -> Coefficients:
        """(1, K) coefficients."""
        gram_KK = grams(blocks)[0]
        shares_K = torch.tensor(positive_shares(self.model_weights(len(gram_KK))), dtype=torch.float64)
        return Coefficients.of(
            karcher_coefficients(gram_KK, shares_K, max_iter=self.max_iter, tol=self.tol)[None], blocks
        )

    def fuse_block(self, block: Block, survey: Coefficients) -> Tensor:
        """`sum_i c_i x_i`, (B,)."""
        return combine(block, survey)
