from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from transfuse.strategy.weights.simplex_newton import Local, minimize_on_simplex
from transfuse.types import ConvergenceError

UNIFORM = np.full(3, 1 / 3)


def quartic(w_M: NDArray[np.float64]) -> Local:
    # f(w) = sum (w - c)^4: convex, singular at its minimum
    away = w_M - np.array([0.7, 0.5, -0.5])
    return Local(value=float((away**4).sum()), gradient_M=4 * away**3, hessian_MM=np.diag(12 * away**2))


def test_the_projection_of_a_quartic() -> None:
    w_M, gap = minimize_on_simplex(quartic, UNIFORM)
    # equal distances from c on the support {0, 1}: 0.7 - 0.1, 0.5 - 0.1
    np.testing.assert_allclose(w_M, [0.6, 0.4, 0.0], atol=1e-9)
    assert w_M[2] == 0
    assert 0 <= gap <= 1e-12


def test_steps_are_halved_where_newton_overshoots() -> None:
    values = []

    def softplus(w_M: NDArray[np.float64]) -> Local:
        # f(w) = log(1 + exp(50 (w_0 - 0.5))) / 50 - 0.3 w_0: flat on both sides
        z = 50 * (w_M[0] - 0.5)
        p = 1 / (1 + np.exp(-z))
        value = float(np.logaddexp(0, z) / 50 - 0.3 * w_M[0])
        values.append(value)
        hessian = np.zeros((2, 2))
        hessian[0, 0] = 50 * p * (1 - p)
        return Local(value=value, gradient_M=np.array([p - 0.3, 0.0]), hessian_MM=hessian)

    w_M, gap = minimize_on_simplex(softplus, np.array([0.95, 0.05]))
    # p = 0.3
    assert w_M[0] == pytest.approx(0.5 + np.log(0.3 / 0.7) / 50, abs=1e-9)
    assert gap <= 1e-12
    assert max(values) > values[0]  # a full step was too long, and was not taken


def test_infinity_marks_the_end_of_the_domain() -> None:
    def barrier(w_M: NDArray[np.float64]) -> Local:
        # f(w) = -log(w_0 - 0.25) - w_1 / 2, defined for w_0 > 0.25
        inside = w_M[0] - 0.25
        if inside <= 0:
            return Local(value=np.inf, gradient_M=np.zeros(2), hessian_MM=np.zeros((2, 2)))
        return Local(
            value=float(-np.log(inside) - 4 * w_M[1]),
            gradient_M=np.array([-1 / inside, -4.0]),
            hessian_MM=np.diag([1 / inside**2, 0.0]),
        )

    w_M, _ = minimize_on_simplex(barrier, np.array([0.99, 0.01]))
    # 1 / (w_0 - 0.25) = 4
    np.testing.assert_allclose(w_M, [0.5, 0.5], atol=1e-9)


def test_too_few_steps_are_an_error() -> None:
    with pytest.raises(ConvergenceError, match=r"certified to .* only, above 1e-08, after at most 1 Newton steps"):
        minimize_on_simplex(quartic, UNIFORM, max_iterations=1)
