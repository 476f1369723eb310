from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.metrics import score
from transfuse.strategy.output_fusion import WeightedAverage
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import NllOptimal, nll_optimal_weights, uniform_weights
from transfuse.strategy.weights.simplex import optimal_mixture, responsibility
from transfuse.types import ConvergenceError, EmptyTaskError, HyperparameterError, Task, TaskKind

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "simplex_nll_pseudo_bma.npz"


def loss(weights_M: Tensor, likelihoods_ME: Tensor) -> float:
    return -float((weights_M @ likelihoods_ME).log().mean())


def likelihoods(predictions: Predictions) -> Tensor:
    p_MNC = predictions.logits_MNC.double().softmax(-1)
    return p_MNC[:, torch.arange(p_MNC.shape[1]), predictions.truth]


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_golden_certified_optimum(case: str) -> None:
    golden = np.load(GOLDEN)
    p_MNC, labels_N = torch.tensor(golden[f"in_{case}_probs"]), torch.tensor(golden[f"in_{case}_y"])
    weights_M, gap = nll_optimal_weights(p_MNC.log(), labels_N)
    np.testing.assert_allclose(weights_M.numpy(), golden[f"out_{case}_weights"], atol=1e-5)
    nll = loss(weights_M, p_MNC[:, torch.arange(len(labels_N)), labels_N])
    assert nll == pytest.approx(float(golden[f"out_{case}_nll"]), abs=1e-8)
    arviz = torch.tensor(golden[f"out_{case}_arviz_stacking"])
    assert nll <= loss(arviz / arviz.sum(), p_MNC[:, torch.arange(len(labels_N)), labels_N]) + 1e-8
    assert 0 <= gap <= 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_at_most_the_objective_of_a_general_optimizer(seed: int) -> None:
    likelihoods_ME = likelihoods(make_predictions("classification", members=6, examples=80, seed=seed))
    matrix = likelihoods_ME.numpy()
    reference = minimize(
        lambda w: -np.log(w @ matrix).mean(),
        np.full(6, 1 / 6),
        jac=lambda w: -(matrix / (w @ matrix)).mean(1),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
        method="SLSQP",
    )
    weights_M, _ = optimal_mixture(likelihoods_ME.log())
    assert loss(weights_M, likelihoods_ME) == pytest.approx(reference.fun, abs=1e-8)


def test_the_gap_bounds_the_distance_to_the_optimum() -> None:
    log_likelihoods_ME = likelihoods(make_predictions("classification", members=7)).log()
    best_M, _ = optimal_mixture(log_likelihoods_ME, tolerance=1e-12)
    best = loss(best_M, log_likelihoods_ME.exp())
    for tolerance in (1e-1, 1e-2, 1e-4):
        weights_M, gap = optimal_mixture(log_likelihoods_ME, tolerance=tolerance)
        assert gap <= tolerance
        assert -1e-12 <= loss(weights_M, log_likelihoods_ME.exp()) - best <= gap + 1e-12


def test_at_most_the_loss_of_every_member_and_of_the_average() -> None:
    likelihoods_ME = likelihoods(make_predictions("classification", members=7))
    weights_M, _ = optimal_mixture(likelihoods_ME.log())
    found = loss(weights_M, likelihoods_ME)
    assert found <= min(loss(row, likelihoods_ME) for row in torch.eye(7, dtype=torch.float64)) + 1e-8
    assert found <= loss(uniform_weights(7), likelihoods_ME) + 1e-8


def test_multiplicative_steps_never_raise_the_loss() -> None:
    likelihoods_ME = likelihoods(make_predictions("classification", members=7))
    weights_M = uniform_weights(7)
    losses = []
    for _ in range(30):
        losses.append(loss(weights_M, likelihoods_ME))
        weights_M = weights_M * torch.from_numpy(responsibility(weights_M.numpy(), likelihoods_ME.numpy()))
        assert float(weights_M.sum()) == pytest.approx(1.0, abs=1e-12)
    assert all(later <= earlier + 1e-15 for earlier, later in pairwise(losses))
    assert losses[-1] < losses[0]


def test_a_copied_member_changes_the_loss_by_nothing() -> None:
    log_likelihoods_ME = likelihoods(make_predictions("classification", members=5)).log()
    doubled_ME = torch.cat([log_likelihoods_ME, log_likelihoods_ME[:3]])
    one = loss(optimal_mixture(log_likelihoods_ME)[0], log_likelihoods_ME.exp())
    two = loss(optimal_mixture(doubled_ME)[0], doubled_ME.exp())
    assert two == pytest.approx(one, abs=1e-8)


def test_a_member_that_is_worse_everywhere_gets_exactly_nothing() -> None:
    log_likelihoods_ME = likelihoods(make_predictions("classification", members=3)).log()
    worse_E = log_likelihoods_ME.amin(0) - 0.1
    weights_M, _ = optimal_mixture(torch.cat([log_likelihoods_ME, worse_E[None]]))
    assert float(weights_M[3]) == 0.0


def test_a_member_that_warm_up_starves_comes_back() -> None:
    # member 2 alone explains the last event, and is hopeless on the 400 others
    ordinary = torch.full((2, 400), 0.5, dtype=torch.float64)
    p_ME = torch.cat([torch.cat([ordinary, torch.full((2, 1), 1e-30)], 1), torch.full((1, 401), 1e-12)])
    p_ME[2, 400] = 1.0
    weights_M, gap = optimal_mixture(p_ME.log())
    # d/dw of -(400 log(1 - w) + log w): w = 1/401
    assert float(weights_M[2]) == pytest.approx(1 / 401, rel=1e-6)
    assert gap <= 1e-8


def test_tiny_likelihoods_do_not_underflow() -> None:
    log_likelihoods_ME = likelihoods(make_predictions("classification", members=4)).log()
    weights_M, _ = optimal_mixture(log_likelihoods_ME)
    shifted_M, _ = optimal_mixture(log_likelihoods_ME - 5000.0)
    torch.testing.assert_close(shifted_M, weights_M, rtol=0, atol=1e-6)


@pytest.mark.parametrize("members", [20, 50])
def test_many_members_are_certified(members: int) -> None:
    predictions = make_predictions("classification", members=members, examples=5000, outputs=10)
    weights_M, gap = nll_optimal_weights(predictions.log_outcomes_MEO, predictions.outcomes_E)
    likelihoods_ME = likelihoods(predictions)
    certificate = float((likelihoods_ME / (weights_M @ likelihoods_ME)).mean(1).max()) - 1
    assert certificate <= 1e-8
    assert gap == pytest.approx(certificate, abs=1e-12)
    assert 1 < int((weights_M > 0).sum()) < members


def test_one_member() -> None:
    weights_M, gap = optimal_mixture(torch.tensor([[-1.0, -2.0]]))
    assert weights_M.tolist() == [1.0]
    assert gap == 0.0


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_shrink_moves_towards_uniform(kind: TaskKind) -> None:
    predictions = make_predictions(kind, members=4)
    plain_M = NllOptimal().weights(predictions).values_M
    shrunk = NllOptimal(shrink=0.4).weights(predictions)
    torch.testing.assert_close(shrunk.values_M, 0.6 * plain_M + 0.1, rtol=0, atol=1e-12)
    assert shrunk.diagnostics["fusion/kkt_gap"] <= 1e-8


def test_too_few_iterations() -> None:
    log_likelihoods_ME = likelihoods(make_predictions("classification", members=7)).log()
    with pytest.raises(ConvergenceError, match=r"after 3 iterations, above `tolerance = 1e-08`"):
        optimal_mixture(log_likelihoods_ME, max_iterations=3)


def test_no_labels() -> None:
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        nll_optimal_weights(torch.zeros(2, 3, 4), torch.full((3,), -1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tolerance": 0.0}, "`weights.tolerance` should be > 0"),
        ({"max_iterations": 0}, "`weights.max_iterations` should be >= 1"),
        ({"shrink": 1.0}, r"`weights.shrink` should be in \[0, 1\). Found `weights.shrink = 1.0`"),
    ],
)
def test_ranges(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        NllOptimal(**fields)  # type: ignore[arg-type]


def test_likelihoods_are_floored_as_in_the_metric() -> None:
    # without a floor the second member is worth anything that avoids -400 nats in one event
    log_probs_MEO = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64).log()[:, None].repeat(1, 60, 1)
    log_probs_MEO[0, 59] = torch.tensor([-400.0, 0.0])
    log_probs_MEO[1, 59] = torch.tensor([-350.0, 0.0])
    predictions = Predictions(
        logits_MNC=log_probs_MEO, kind="classification", labels=torch.zeros(60, dtype=torch.int64)
    )
    weights_M, gap = nll_optimal_weights(log_probs_MEO, predictions.truth)
    assert weights_M.tolist() == [1.0, 0.0]
    floored_ME = log_probs_MEO[:, :, 0].exp().clamp(min=1e-12)
    assert gap == pytest.approx(float((floored_ME / (weights_M @ floored_ME)).mean(1).max()) - 1, abs=1e-12)
    fused_NC = WeightedAverage().combine(predictions)(log_probs_MEO)
    task = Task(name="y", kind="classification", outputs=2)
    assert score(task, fused_NC, predictions.truth, "nll") <= float(predictions.scores("nll").min()) + 1e-8
