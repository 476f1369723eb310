"""Solvers over the simplex, in float64, each with a certificate of how far from optimal its answer can be.

They compute in NumPy: on the small matrices here a step costs less than torch needs to start it.
Dimensions in tensor names: M members, E events, K members that are inside.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transfuse.types import ConvergenceError

Array = NDArray[np.float64]

_WARM_UP = 4  # multiplicative steps before Newton: monotone, and enough for its quadratic model to be a good one
_ROUNDING = 1e-14  # of the mean of logarithms close to 0
_ZERO = 1e-10  # a smaller weight is set to exactly 0 and the certificate is computed anew


def optimal_mixture(
    log_likelihoods_ME: Tensor, *, tolerance: float = 1e-8, max_iterations: int = 10_000
) -> tuple[Tensor, float]:
    """Weights of the mixture under which what happened is most likely.

    `min_w f(w) = -mean_e log q_e`, `q_e = sum_m w_m p_me`, `w >= 0`, `sum_m w_m = 1`. With `s_m = mean_e p_me / q_e`
    every feasible w has `sum_m w_m s_m = 1` and `0 <= f(w) - f(w*) <= log(max_m s_m) <= max_m s_m - 1` (Jensen): that
    gap is the certificate. The first steps multiply, `w_m <- w_m s_m` (EM for mixture weights, Cover 1984); then each
    step is a Newton step over the simplex with backtracking, which lets members with `s_m > 1` in again.

    Args:
        log_likelihoods_ME: (M, E) log-probability that member m gave to what happened in event e.
        tolerance: largest gap that is accepted, in nats, > 0.
        max_iterations: of both kinds of step together.

    Returns:
        (M,) float64 weights, exactly 0 where a member has no part, and the gap over all members.

    Raises:
        ConvergenceError: when the gap is still above `tolerance` after `max_iterations`.
    """
    log_p_ME = log_likelihoods_ME.detach().cpu().double()
    # dividing each event by its largest likelihood shifts f by a constant, leaves s alone, and nothing underflows
    p_ME: Array = (log_p_ME - log_p_ME.amax(dim=0)).exp().numpy()
    num_members = len(p_ME)
    w_M: Array = np.full(num_members, 1 / num_members)
    s_M = responsibility(w_M, p_ME)
    gap, iteration = float(s_M.max()) - 1, 0
    # where there is a choice, at least one Newton step: it is what makes weights exactly 0
    while iteration < max_iterations and (gap > tolerance or 0 < iteration <= _WARM_UP):
        # w_m <- w_m s_m
        w_M = _normalized(w_M * s_M) if iteration < _WARM_UP else _newton_step(w_M, p_ME, s_M)
        s_M = responsibility(w_M, p_ME)
        gap, iteration = float(s_M.max()) - 1, iteration + 1
    if not gap <= tolerance:
        raise ConvergenceError(
            f"The weights are certified to {gap:.3g} only after {max_iterations} iterations, above "
            f"`tolerance = {tolerance:g}`. Raise `max_iterations` or `tolerance`?"
        )
    cleaned_M = _normalized(np.where(w_M < _ZERO, 0.0, w_M))
    cleaned_gap = float(responsibility(cleaned_M, p_ME).max()) - 1
    if cleaned_gap <= tolerance:
        w_M, gap = cleaned_M, cleaned_gap
    return torch.from_numpy(w_M), max(gap, 0.0)


def responsibility(w_M: Array, p_ME: Array) -> Array:
    """`s_m = mean_e p_me / q_e`: minus the gradient of the mixture's negative log-likelihood."""
    s_M: Array = p_ME @ (1 / (w_M @ p_ME)) / p_ME.shape[1]
    return s_M


def simplex_quadratic(q_MM: Tensor, c_M: Tensor) -> tuple[Tensor, float]:
    """Minimises `v'Qv / 2 - c'v` over the simplex by active sets: exact up to rounding, for any number of members.

    Starting from the best vertex, the member with the most negative reduced gradient enters, the problem is solved on
    the members that are in (one linear system), and members that would get a negative weight leave (the scheme of
    Lawson & Hanson 1974, with the sum fixed).

    Args:
        q_MM: (M, M) symmetric, positive semi-definite.
        c_M: (M,).

    Returns:
        (M,) float64 weights, and the Frank-Wolfe gap `g'v - min_m g_m >= f(v) - f(v*)` with `g = Qv - c`.
    """
    w_M, gap = _quadratic(q_MM.detach().cpu().double().numpy(), c_M.detach().cpu().double().numpy())
    return torch.from_numpy(w_M), gap


def _quadratic(q_MM: Array, c_M: Array) -> tuple[Array, float]:
    num_members = len(c_M)
    rounding = 1e-14 * float(np.abs(q_MM).max() + np.abs(c_M).max())
    w_M: Array = np.zeros(num_members)
    w_M[(q_MM.diagonal() / 2 - c_M).argmin()] = 1.0
    best_M, best_gap = w_M, float("inf")
    for _ in range(10 * num_members):
        gradient_M = q_MM @ w_M - c_M
        gap = float(gradient_M @ w_M - gradient_M.min())
        if gap < best_gap:
            best_M, best_gap = w_M, gap
        if gap <= rounding:
            break
        inside_M = w_M > 0
        inside_M[gradient_M.argmin()] = True
        w_M = _solve_inside(q_MM, c_M, w_M, inside_M)
    return best_M, max(best_gap, 0.0)


def _solve_inside(q_MM: Array, c_M: Array, w_M: Array, inside_M: NDArray[np.bool_]) -> Array:
    """Walks from `w_M` to the minimum over the members inside; whoever reaches 0 on the way leaves."""
    while True:
        index_K = inside_M.nonzero()[0]
        target_M: Array = np.zeros_like(w_M)
        target_M[index_K] = _equality_constrained(q_MM[np.ix_(index_K, index_K)], c_M[index_K])
        falling_M = (target_M <= 0) & inside_M
        if len(index_K) == 1 or not falling_M.any():
            return _normalized(target_M.clip(min=0))
        # the largest t for which w + t (target - w) stays on the simplex
        t_M = np.where(falling_M, w_M / (w_M - target_M).clip(min=1e-300), np.inf)
        t = min(float(t_M.min()), 1.0)
        w_M = (w_M + t * (target_M - w_M)).clip(min=0)
        leaving_M = falling_M & (t_M <= t)
        w_M[leaving_M] = 0.0
        inside_M = inside_M & ~leaving_M


def _equality_constrained(q_KK: Array, c_K: Array) -> Array:
    """The minimiser of `v'Qv / 2 - c'v` with `sum v = 1`; of least norm where members repeat each other."""
    size = len(c_K)
    scale = max(float(q_KK.diagonal().mean()), 1e-300)
    kkt = np.zeros((size + 1, size + 1))
    kkt[:size, :size] = q_KK / scale
    kkt[size, :size] = kkt[:size, size] = 1.0
    solution: Array = np.linalg.lstsq(kkt, np.append(c_K / scale, 1.0), rcond=None)[0]
    return solution[:size]


def _newton_step(w_M: Array, p_ME: Array, s_M: Array) -> Array:
    """One Newton step over the simplex, halved until the objective falls enough (Armijo).

    Members without weight that would not lower the objective (`s_m <= 1`) stay out of the step: the matrix of second
    derivatives is then as small as the support.
    """
    index_K = ((w_M > 0) | (s_M > 1)).nonzero()[0]
    w_K, s_K = w_M[index_K], s_M[index_K]
    r_KE = p_ME[index_K] / (w_M @ p_ME)
    # model at w: -s'(v - w) + (v - w)'H(v - w) / 2 with H = RR'/E; as Hw = s it is v'Hv / 2 - 2 s'v
    hessian_KK = r_KE @ r_KE.T / p_ME.shape[1]
    direction_K = _quadratic(hessian_KK, 2 * s_K)[0] - w_K
    slope = float(s_K @ direction_K)
    change_E = direction_K @ r_KE
    found_K, step = _normalized(w_K * s_K), 1.0
    while step > 1e-6:
        # f(w) - f(w + t d) = mean_e log(1 + t (d'p_e) / q_e)
        growth_E = 1 + step * change_E
        if growth_E.min() > 0 and float(np.log(growth_E).mean()) >= 1e-4 * step * slope - _ROUNDING:
            found_K = _normalized((w_K + step * direction_K).clip(min=0))
            break
        step /= 2
    stepped_M: Array = np.zeros_like(w_M)
    stepped_M[index_K] = found_K
    return stepped_M


def _normalized(w_M: Array) -> Array:
    normalized_M: Array = w_M / w_M.sum()
    return normalized_M
