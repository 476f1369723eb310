"""`weight_fusion/multislerp`: the direction between several models, at their mean norm.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.shares import positive_shares
from transfuse.strategy.weight_fusion.spherical import at_mean_norm, exponential, mean_direction, mean_logarithm
from transfuse.strategy.weight_fusion.vectors import Coefficients, combine, cosines, grams
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError


def multislerp_coefficients(gram_KK: Tensor, shares_K: Tensor, *, exact: bool = False) -> Tensor:
    """Coefficients of `exp_m(sum_i w_i log_m(u_i)) * sum_i w_i |x_i|`, m the normalized `sum_i w_i u_i`.

    Projected logarithms `u_i - <u_i, m> m` sum to 0, so that m itself is the point.

    Args:
        gram_KK: inner products of the models.
        shares_K: weights that sum to 1.
        exact: logarithms of the sphere, in place of projected ones.

    Returns:
        (K,) float64; the weights themselves where the unit vectors cancel.

    Example:
        >>> multislerp_coefficients(torch.tensor([[1.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([0.5, 0.5]).double())
        tensor([1.0607, 0.5303], dtype=torch.float64)
    """
    point_K = mean_direction(gram_KK, shares_K)
    if exact and point_K is not None:
        cosines_KK = cosines(gram_KK)
        point_K = exponential(cosines_KK, point_K, mean_logarithm(cosines_KK, shares_K, point_K))
    return at_mean_norm(gram_KK, shares_K, point_K)


@dataclass(frozen=True, kw_only=True)
class MultiSlerp(Weighted):
    """`x = exp_m(sum_i w_i log_m(u_i)) * sum_i w_i |x_i|`, `u_i = x_i / |x_i|`, m the normalized `sum_i w_i u_i`.

    Per tensor, of the task vectors `d_i = x_i - b` where there is a base. Vectors of zeros have no direction, but their
    share in the mean norm; where all directions cancel, the result is the weighted mean.

    Attributes:
        weights: see `Weighted`, >= 0, divided by their sum; None: 1 each.
        logarithm: `projected` to the tangent space, which makes m the direction, as published; or those of the
            `sphere`: one step of the Karcher mean.

    Example:
        >>> MultiSlerp().merged([{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}])
        {'w': tensor([0.7071, 0.7071])}

    Reference:
        Goddard et al. 2024 (2403.13257), "multislerp".
    """

    size: ClassVar[int] = WIDE
    base: ClassVar[Need] = "optional"

    logarithm: Literal["projected", "sphere"] = "projected"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logarithm not in ("projected", "sphere"):
            raise HyperparameterError(
                f"`logarithm` should be projected or sphere. Found `logarithm = {self.logarithm}`."
            )

    def survey(self, blocks: Blocks) -> Coefficients:
        """(1, K) coefficients."""
        gram_KK = grams(blocks)[0]
        shares_K = torch.tensor(positive_shares(self.model_weights(len(gram_KK))), dtype=torch.float64)
        return Coefficients.of(
            multislerp_coefficients(gram_KK, shares_K, exact=self.logarithm == "sphere")[None], blocks
        )

    def fuse_block(self, block: Block, survey: Coefficients) -> Tensor:
        """`sum_i c_i x_i`, or `b + sum_i c_i d_i`, (B,)."""
        return combine(block, survey)
