"""Weights with `(G w)_t = w_t^(-1/alpha)`: what Nash-MTL and FairGrad share.

Dimensions in tensor names: T tasks.
"""

from __future__ import annotations

import numpy as np

from transfuse.strategy.multi_task.base import Array
from transfuse.strategy.multi_task.gradient_rule import NoSolutionError

_TOLERANCE = 1e-9
_ACCEPTED = 1e-6  # where rounding ends the search
_STEPS = 200


def solve_fair(gramian_TT: Array, alpha: float = 1.0) -> tuple[Array, float]:
    """`w > 0` with `(G w)_t = w_t^(-1/alpha)`, and the residual `max_t |w_t (G w)_t^alpha - 1|`.

    Damped Newton on the convex `w^T G w / 2 - sum_t phi(w_t)`, `phi' = w^(-1/alpha)`, on the matrix of cosines: with
    `w = v / n^(2 alpha / (1 + alpha))` the equations keep their form where norms are divided out.

    Raises:
        NoSolutionError: there is no solution (some `G w` is 0 for a `w > 0`), or rounding hides it.
    """
    power = 1.0 / alpha
    scale = np.diagonal(gramian_TT).mean()
    inner_TT = gramian_TT / scale
    norms_T = np.sqrt(np.diagonal(inner_TT))
    # (G w)_t w_t^p = 1 in y = log w: strictly monotone after scaling by a diagonal start
    weights_T = norms_T ** (-2.0 / (1.0 + power))
    for _ in range(_STEPS):
        pull_T = inner_TT @ weights_T
        target_T = weights_T**-power
        gradient_T = pull_T - target_T
        residual = _residual(weights_T, pull_T, alpha)
        if residual < _TOLERANCE:
            break
        hessian_TT = inner_TT + np.diag(power * target_T / weights_T)
        # in units of the weights, which may be far apart
        units = np.outer(weights_T, weights_T)
        move_T = -np.linalg.solve(hessian_TT * units, gradient_T * weights_T) * weights_T
        size = _step_size(inner_TT, weights_T, move_T, gradient_T, power)
        if size == 0.0:
            break
        weights_T = weights_T + size * move_T
    residual = _residual(weights_T, inner_TT @ weights_T, alpha)
    if not residual < _ACCEPTED:
        raise NoSolutionError
    found: Array = weights_T * scale ** (-1.0 / (1.0 + power))
    return found, residual


def _residual(weights_T: Array, pull_T: Array, alpha: float) -> float:
    if (pull_T <= 0).any():
        return float("inf")
    return float(np.abs(weights_T * pull_T**alpha - 1.0).max())


def _step_size(inner_TT: Array, weights_T: Array, move_T: Array, gradient_T: Array, power: float) -> float:
    """Backtracking into the positive orthant and downhill; 0 where rounding allows no step."""
    negative = move_T < 0
    size = min(1.0, 0.99 * float((-weights_T[negative] / move_T[negative]).min())) if negative.any() else 1.0
    slope = float(gradient_T @ move_T)
    before = _potential(inner_TT, weights_T, power)
    for _ in range(60):
        after = _potential(inner_TT, weights_T + size * move_T, power)
        if after <= before + 1e-4 * size * slope + 1e-15 * abs(before):
            return size
        size /= 2
    return 0.0


def _potential(inner_TT: Array, weights_T: Array, power: float) -> float:
    barrier = np.log(weights_T) if power == 1.0 else weights_T ** (1.0 - power) / (1.0 - power)
    return float(weights_T @ inner_TT @ weights_T / 2 - barrier.sum())
