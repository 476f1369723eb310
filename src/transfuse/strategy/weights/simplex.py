"""Solvers over the simplex, in float64, each with a certificate of how far from optimal its answer can be.

Dimensions in tensor names: M members, E events.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.types import ConvergenceError

_WARM_UP = 50  # multiplicative steps before Newton: cheap, monotone, and they find most of the support
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
    log_p_ME = log_likelihoods_ME.double()
    # dividing each event by its largest likelihood shifts f by a constant, leaves s alone, and nothing underflows
    p_ME = (log_p_ME - log_p_ME.amax(dim=0)).exp()
    num_members = p_ME.shape[0]
    w_M = torch.full((num_members,), 1 / num_members, dtype=torch.float64)
    gap, iteration = _gap(w_M, p_ME), 0
    while gap > tolerance and iteration < min(_WARM_UP, max_iterations):
        # w_m <- w_m s_m
        w_M = _normalized(w_M * responsibility(w_M, p_ME))
        gap, iteration = _gap(w_M, p_ME), iteration + 1
    # one Newton step even where the warm-up was enough: it is what makes weights exactly 0
    satisfied = iteration == 0
    while not satisfied and iteration < max_iterations:
        w_M = _newton_step(w_M, p_ME)
        gap, iteration = _gap(w_M, p_ME), iteration + 1
        satisfied = gap <= tolerance
    if gap > tolerance:
        raise ConvergenceError(
            f"The weights are certified to {gap:.3g} only after {max_iterations} iterations, above "
            f"`tolerance = {tolerance:g}`. Raise `max_iterations` or `tolerance`?"
        )
    cleaned_M = _normalized(torch.where(w_M < _ZERO, 0.0, w_M))
    cleaned_gap = _gap(cleaned_M, p_ME)
    return (cleaned_M, max(cleaned_gap, 0.0)) if cleaned_gap <= tolerance else (w_M, gap)


def responsibility(w_M: Tensor, p_ME: Tensor) -> Tensor:
    """`s_m = mean_e p_me / q_e`: minus the gradient of the mixture's negative log-likelihood."""
    return (p_ME / (w_M @ p_ME)).mean(dim=1)


def _gap(w_M: Tensor, p_ME: Tensor) -> float:
    return float(responsibility(w_M, p_ME).max()) - 1


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
    q_MM, c_M = q_MM.double(), c_M.double()
    num_members = len(c_M)
    rounding = 1e-14 * float(q_MM.abs().max() + c_M.abs().max())
    w_M = torch.zeros(num_members, dtype=torch.float64)
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


def _solve_inside(q_MM: Tensor, c_M: Tensor, w_M: Tensor, inside_M: Tensor) -> Tensor:
    """Walks from `w_M` to the minimum over the members inside; whoever reaches 0 on the way leaves."""
    inside_M = inside_M.clone()
    while True:
        index = inside_M.nonzero().squeeze(1)
        target_M = torch.zeros_like(w_M)
        target_M[index] = _equality_constrained(q_MM[index][:, index], c_M[index])
        falling = (target_M <= 0) & inside_M
        if not falling.any() or len(index) == 1:
            return _normalized(target_M.clamp(min=0))
        # the largest t for which w + t (target - w) stays on the simplex
        t_M = torch.where(falling, w_M / (w_M - target_M).clamp(min=1e-300), torch.inf)
        t = float(t_M.min().clamp(max=1.0))
        w_M = (w_M + t * (target_M - w_M)).clamp(min=0)
        leaving = falling & (t_M <= t)
        w_M[leaving] = 0.0
        inside_M &= ~leaving


def _equality_constrained(q_KK: Tensor, c_K: Tensor) -> Tensor:
    """The minimiser of `v'Qv / 2 - c'v` with `sum v = 1`; of least norm where members repeat each other."""
    size = len(c_K)
    scale = float(q_KK.diagonal().mean().clamp(min=1e-300))
    kkt = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    kkt[:size, :size] = q_KK / scale
    kkt[size, :size] = kkt[:size, size] = 1.0
    right = torch.cat([c_K / scale, torch.ones(1, dtype=torch.float64)])
    solution: Tensor = torch.linalg.lstsq(kkt, right.unsqueeze(1), driver="gelsd").solution
    return solution[:size, 0]


def _newton_step(w_M: Tensor, p_ME: Tensor) -> Tensor:
    """One Newton step over the simplex, halved until the objective falls enough (Armijo)."""
    r_ME = p_ME / (w_M @ p_ME)
    s_M = r_ME.mean(dim=1)
    # model at w: -s'(v - w) + (v - w)'H(v - w) / 2 with H = RR'/E; as Hw = s it is v'Hv / 2 - 2 s'v
    hessian_MM = r_ME @ r_ME.T / p_ME.shape[1]
    direction_M = simplex_quadratic(hessian_MM, 2 * s_M)[0] - w_M
    slope = float(s_M @ direction_M)
    step = 1.0
    while step > 1e-6:
        # f(w) - f(w + t d) = mean_e log(1 + t (d'p_e) / q_e)
        growth_E = 1 + step * (direction_M @ r_ME)
        if bool((growth_E > 0).all()) and float(growth_E.log().mean()) >= 1e-4 * step * slope - _ROUNDING:
            return _normalized((w_M + step * direction_M).clamp(min=0))
        step /= 2
    return _normalized(w_M * s_M)


def _normalized(w_M: Tensor) -> Tensor:
    return w_M / w_M.sum()
