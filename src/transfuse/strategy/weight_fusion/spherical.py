"""Points of the unit sphere that are combinations of K unit vectors: all geometry is in their K x K cosines.

A point is `u = sum_i a_i u_i`, given by its coefficients a. Dimensions in tensor names: K models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.vectors import cosines

_NO_DIRECTION = 1e-7  # a sum of unit vectors that is shorter is rounding


def at_mean_norm(gram_KK: Tensor, shares_K: Tensor, point_K: Tensor | None) -> Tensor:
    """Coefficients of the models for a point of the sphere, times the weighted mean of the models' norms.

    Args:
        gram_KK: the models' inner products.
        shares_K: weights that sum to 1.
        point_K: of the sphere; None where there is no direction: then the weighted mean of the models.

    Returns:
        (K,) coefficients of the models' own vectors; 0 for a zero vector.
    """
    if point_K is None:
        return shares_K
    norms_K = gram_KK.diagonal().sqrt()
    # c_i = (sum_j w_j |x_j|) a_i / |x_i|
    return (shares_K @ norms_K) * point_K / norms_K.where(norms_K > 0, torch.inf)


def mean_direction(gram_KK: Tensor, shares_K: Tensor) -> Tensor | None:
    """The normalized weighted mean of the unit vectors, (K,); None where they cancel. Zero vectors have no part in it.

    Example:
        >>> mean_direction(torch.eye(2), torch.tensor([0.5, 0.5]))
        tensor([0.7071, 0.7071])
    """
    point_K = shares_K.where(gram_KK.diagonal() > 0, 0.0)
    norm = _norm(cosines(gram_KK), point_K)
    return point_K / norm if norm > _NO_DIRECTION else None


def mean_logarithm(cosines_KK: Tensor, shares_K: Tensor, point_K: Tensor) -> Tensor:
    """The weighted mean of the logarithms of the unit vectors at a point: the tangent that leads towards their mean.

    Args:
        cosines_KK: of the models.
        shares_K: weights.
        point_K: of the sphere.

    Returns:
        (K,) coefficients of the tangent vector.
    """
    cosine_K = (cosines_KK @ point_K).clamp(-1, 1)
    angle_K = cosine_K.acos()
    # log_u(u_i) = theta_i / sin(theta_i) (u_i - cos(theta_i) u)
    factor_K = shares_K / torch.sinc(angle_K / torch.pi).clamp_min(1e-9)
    factor_K = factor_K.where(cosines_KK.diagonal() > 0, 0.0)
    return factor_K - (factor_K @ cosine_K) * point_K


def exponential(cosines_KK: Tensor, point_K: Tensor, tangent_K: Tensor) -> Tensor:
    """The point where the geodesic from `point_K` along `tangent_K` ends, (K,).

    Example:
        >>> exponential(torch.eye(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, torch.pi / 2])).round(decimals=4)
        tensor([-0., 1.])
    """
    angle = _norm(cosines_KK, tangent_K)
    # exp_u(v) = cos(|v|) u + sin(|v|) / |v| v
    moved_K = angle.cos() * point_K + torch.sinc(angle / torch.pi) * tangent_K
    return moved_K / _norm(cosines_KK, moved_K)


def _norm(cosines_KK: Tensor, vector_K: Tensor) -> Tensor:
    """|sum_i a_i u_i| = sqrt(a^T C a)."""
    return (vector_K @ cosines_KK @ vector_K).clamp_min(0).sqrt()


def length(cosines_KK: Tensor, tangent_K: Tensor) -> float:
    """How long a tangent vector is, in radians."""
    return float(_norm(cosines_KK, tangent_K))
