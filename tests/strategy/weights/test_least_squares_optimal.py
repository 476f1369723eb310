from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.randomness import make_generator
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import LeastSquaresOptimal, least_squares_weights
from transfuse.strategy.weights.simplex import simplex_quadratic
from transfuse.types import EmptyTaskError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "regression.npz"


def minimum_over_supports(q_MM: np.ndarray, c_M: np.ndarray) -> float:
    """The smallest `v'Qv / 2 - c'v` over the simplex: the best feasible solution among all supports."""
    best = np.inf
    for size in range(1, len(c_M) + 1):
        for support in map(list, combinations(range(len(c_M)), size)):
            kkt = np.ones((size + 1, size + 1))
            kkt[:size, :size], kkt[size, size] = q_MM[np.ix_(support, support)], 0.0
            v = np.linalg.lstsq(kkt, np.append(c_M[support], 1.0), rcond=None)[0][:size]
            if (v >= -1e-12).all() and abs(v.sum() - 1) < 1e-9:
                best = min(best, v @ q_MM[np.ix_(support, support)] @ v / 2 - c_M[support] @ v)
    return best


def test_golden_enumerated_optimum() -> None:
    golden = np.load(GOLDEN)
    weights_M, gap = least_squares_weights(torch.tensor(golden["in_preds"]), torch.tensor(golden["in_y"]))
    np.testing.assert_allclose(weights_M.numpy(), golden["out_ls_simplex_weights"], atol=1e-8)
    mse = ((weights_M.numpy() @ golden["in_preds"] - golden["in_y"]) ** 2).mean()
    assert mse == pytest.approx(float(golden["out_ls_simplex_mse"]), abs=1e-8)
    assert 0 <= gap <= 1e-12


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_best_over_all_supports(seed: int) -> None:
    generator = make_generator("quadratic", seed)
    members = 1 + seed % 7
    factor = torch.randn(members, 1 + seed % 5, generator=generator, dtype=torch.float64)
    q_MM, c_M = factor @ factor.T, torch.randn(members, generator=generator, dtype=torch.float64)
    weights_M, gap = simplex_quadratic(q_MM, c_M)
    found = float(weights_M @ q_MM @ weights_M / 2 - c_M @ weights_M)
    assert found == pytest.approx(minimum_over_supports(q_MM.numpy(), c_M.numpy()), abs=1e-10)
    assert (weights_M >= 0).all()
    assert float(weights_M.sum()) == pytest.approx(1.0, abs=1e-12)
    assert gap <= 1e-10


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_many_members_and_copies_of_them(scale: float) -> None:
    generator = make_generator("copies")
    targets_E = torch.randn(200, generator=generator, dtype=torch.float64)
    values_ME = targets_E + torch.randn(40, 200, generator=generator, dtype=torch.float64)
    doubled_ME = torch.cat([values_ME, values_ME])
    weights_M, gap = least_squares_weights(scale * values_ME, scale * targets_E)
    doubled_M, _ = least_squares_weights(scale * doubled_ME, scale * targets_E)
    assert gap <= 1e-12 * scale**2
    one = float((weights_M @ values_ME - targets_E).square().mean())
    two = float((doubled_M @ doubled_ME - targets_E).square().mean())
    assert two == pytest.approx(one, abs=1e-12)


def test_at_most_the_error_of_every_member_and_of_the_average() -> None:
    predictions = make_predictions("regression", members=7)
    weights_M = LeastSquaresOptimal().weights(predictions).values_M
    values_MNC, truth_NC = predictions.logits_MNC, predictions.truth

    def error(w_M: torch.Tensor) -> float:
        return float((torch.einsum("m,mnc->nc", w_M.double(), values_MNC) - truth_NC).square().mean())

    others = [*torch.eye(7), torch.full((7,), 1 / 7)]
    assert error(weights_M) <= min(error(other) for other in others) + 1e-12


def test_perfect_members_and_unlabelled_values() -> None:
    values_MNC = torch.tensor([[[1.0, 5.0], [2.0, 7.0]], [[4.0, 5.0], [0.0, 7.0]]])
    labels_NC = torch.tensor([[1.0, torch.nan], [2.0, torch.nan]])
    found = LeastSquaresOptimal().weights(Predictions(logits_MNC=values_MNC, kind="regression", labels=labels_NC))
    assert found.values_M.tolist() == [1.0, 0.0]
    assert found.diagnostics["fusion/frank_wolfe_gap"] == 0.0


def test_no_labels() -> None:
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        least_squares_weights(torch.zeros(2, 0), torch.zeros(0))
