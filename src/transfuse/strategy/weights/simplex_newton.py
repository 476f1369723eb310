"""Newton's method over the simplex for any smooth convex function, with a certificate.

It computes in NumPy, as `simplex` does. Dimensions in tensor names: M members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from transfuse.strategy.weights.simplex import Array, simplex_quadratic
from transfuse.types import ConvergenceError

_ROUNDING = 1e-14  # of a value of the function, relative to 1 + its size


@dataclass(frozen=True, kw_only=True)
class Local:
    """A function near one point.

    Attributes:
        value: of the function; infinity outside its domain.
        gradient_M: (M,).
        hessian_MM: (M, M), positive semi-definite.
    """

    value: float
    gradient_M: Array
    hessian_MM: Array


def minimize_on_simplex(
    function: Callable[[Array], Local], start_M: Array, *, tolerance: float = 1e-8, max_iterations: int = 200
) -> tuple[Array, float]:
    """`argmin f(w)` over `w >= 0, sum_m w_m = 1` for convex f: Newton steps over the simplex, halved where too long.

    Each step minimises f's quadratic model over the whole simplex (see `simplex_quadratic`), so that members leave and
    come back in one step. It goes on until rounding stops it, so that the answer is better than `tolerance` asks.

    Args:
        function: w (M,) to f, its gradient and its Hessian there.
        start_M: (M,) on the simplex, where f is finite.
        tolerance: largest accepted gap, > 0; more only where rounding of large second derivatives leaves more.
        max_iterations: Newton steps, >= 1.

    Returns:
        (M,) float64 weights, exactly 0 for members without a part; and the Frank-Wolfe gap
        `g'w - min_m g_m >= f(w) - f(w*)`, g the gradient.

    Raises:
        ConvergenceError: when the gap stays above `tolerance`.
    """
    w_M, here = start_M, function(start_M)
    gap = _gap(w_M, here)
    for _ in range(max_iterations):
        if gap <= _ROUNDING / 10:
            break
        next_M, there, is_last = _newton_step(function, w_M, here)
        # where f itself is as low as rounding lets it, the gap can still fall
        if is_last and not _gap(next_M, there) < gap / 2:
            break
        w_M, here, gap = next_M, there, _gap(next_M, there)
    # rounding of the gradient alone leaves such a gap
    unavoidable = _ROUNDING * float(abs(here.hessian_MM).max())
    if not gap <= max(tolerance, unavoidable):
        raise ConvergenceError(
            f"The weights are certified to {gap:.3g} only, above {tolerance:g}, after at most {max_iterations} "
            f"Newton steps. Are the members' predictions of very different scales?"
        )
    return w_M, max(gap, 0.0)


def _gap(w_M: Array, here: Local) -> float:
    """The Frank-Wolfe gap `g'w - min_m g_m`, which bounds `f(w) - f(w*)` as f is convex."""
    return float(here.gradient_M @ w_M - here.gradient_M.min())


def _newton_step(function: Callable[[Array], Local], w_M: Array, here: Local) -> tuple[Array, Local, bool]:
    """The next point, f there, and whether f can fall no further than rounding."""
    # model at w: g'(v - w) + (v - w)'H(v - w) / 2
    found_M = simplex_quadratic(
        torch.from_numpy(here.hessian_MM), torch.from_numpy(here.hessian_MM @ w_M - here.gradient_M)
    )[0].numpy()
    direction_M = found_M - w_M
    slope = float(here.gradient_M @ direction_M)
    rounding = _ROUNDING * (1 + abs(here.value))
    next_M, there, step = found_M, function(found_M), 1.0
    while -step * slope > rounding and there.value > here.value + 1e-4 * step * slope:
        step /= 2
        next_M = w_M + step * direction_M
        there = function(next_M)
    return next_M, there, -step * slope <= rounding
