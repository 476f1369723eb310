from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import LogPoolOptimal, fuse
from transfuse.strategy.output_fusion.log_pool_optimal import log_pool_weights
from transfuse.types import EmptyTaskError, HyperparameterError, IncompatibleStrategyError

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "output_fusion" / "pools_and_votes.npz")
LOG_P_MNC = torch.from_numpy(GOLDEN["in_probs"]).clamp(min=1e-12).log()
LABELS_N = torch.from_numpy(GOLDEN["in_y"]).long()


def nll(weights: Any, log_p_MNC: torch.Tensor = LOG_P_MNC, labels_N: torch.Tensor = LABELS_N) -> float:
    w_M = torch.as_tensor(weights, dtype=torch.float64)
    return float(cross_entropy((w_M[:, None, None] * log_p_MNC).sum(0), labels_N))


def scipy_weights(total: str, ridge: float) -> np.ndarray[Any, Any]:
    start = np.full(len(LOG_P_MNC), 1 / len(LOG_P_MNC))

    def objective(w: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        w_M = torch.tensor(w, requires_grad=True)
        loss = cross_entropy((w_M[:, None, None] * LOG_P_MNC).sum(0), LABELS_N)
        loss = loss + ridge * ((w_M - 1 / len(w_M)) ** 2).sum()
        loss.backward()
        assert w_M.grad is not None
        return float(loss.detach()), w_M.grad.numpy()

    bounds = [(0.0, None)] * len(start)
    if total == "one":
        sum_one = {"type": "eq", "fun": lambda w: w.sum() - 1}
        options = {"ftol": 1e-16, "maxiter": 1000}
        found = minimize(
            objective, start, jac=True, method="SLSQP", bounds=bounds, constraints=sum_one, options=options
        )
    else:
        options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 1000}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize("total", ["one", "free"])
def test_scipy_finds_the_same_weights(total: Any, ridge: float) -> None:
    w_M, diagnostics = log_pool_weights(LOG_P_MNC, LABELS_N, sum=total, ridge=ridge)
    np.testing.assert_allclose(w_M.numpy(), scipy_weights(total, ridge), atol=1e-6)
    assert diagnostics["fusion/kkt_gap"] <= 1e-12


@pytest.mark.parametrize("total", ["one", "free"])
def test_the_certificate_bounds_the_distance_to_every_other_pool(total: Any) -> None:
    w_M, diagnostics = log_pool_weights(LOG_P_MNC, LABELS_N, sum=total)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other_M = torch.rand(5, generator=generator, dtype=torch.float64)
        if total == "one":
            other_M /= other_M.sum()
        assert nll(w_M) - diagnostics["fusion/kkt_gap"] <= nll(other_M) + 1e-14


def test_the_residual_is_that_of_the_kkt_conditions() -> None:
    noise_NC = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong_NC = torch.nn.functional.one_hot((LABELS_N + 1) % 4, 4)
    confused_NC = (noise_NC + 3 * wrong_NC).log_softmax(1)
    log_p_MNC = torch.cat([LOG_P_MNC, confused_NC[None]])
    w_M, diagnostics = log_pool_weights(log_p_MNC, LABELS_N)
    w = w_M.clone().requires_grad_(True)
    cross_entropy((w[:, None, None] * log_p_MNC).sum(0), LABELS_N).backward()
    assert w.grad is not None
    assert (w_M == 0).any()
    assert (w.grad[w_M == 0] > 0).all()
    assert float(torch.minimum(w_M, w.grad).abs().max()) <= 1e-8
    assert diagnostics["fusion/kkt_residual"] <= 1e-8
    assert diagnostics["fusion/temperature"] == pytest.approx(1 / float(w_M.sum()))
    assert diagnostics["fusion/sum_at_bound"] == 0


def test_free_is_at_most_one_is_at_most_the_geometric_mean_and_its_best_temperature() -> None:
    free, one = (nll(log_pool_weights(LOG_P_MNC, LABELS_N, sum=total)[0]) for total in ("free", "one"))
    assert free < one < nll(np.full(5, 1 / 5))
    assert free <= min(nll(np.full(5, total / 5)) for total in np.linspace(0.05, 20, 400))
    assert one <= min(nll(row) for row in np.eye(5))


def test_one_member_with_a_free_sum_is_its_best_temperature() -> None:
    # examples that are floored at log 1e-12 are not scaled
    kept = (3.0 * LOG_P_MNC[0] > math.log(1e-12)).all(1)
    w_M, _ = log_pool_weights(3.0 * LOG_P_MNC[:1, kept], LABELS_N[kept])
    unscaled_M, _ = log_pool_weights(LOG_P_MNC[:1, kept], LABELS_N[kept])
    assert float(unscaled_M) == pytest.approx(3.0 * float(w_M), rel=1e-6)


def test_a_pool_that_separates_the_data_stops_at_the_bound() -> None:
    labels_N = torch.arange(40) % 4
    logits_NC = torch.nn.functional.one_hot(labels_N, 4).double()
    fused = fuse(torch.stack([logits_NC, 0.5 * logits_NC]), method="log_pool_optimal", labels=labels_N)
    assert fused.weights is not None
    assert float(fused.weights.sum()) == pytest.approx(20.0)
    assert fused.diagnostics["fusion/sum_at_bound"] == 1
    assert fused.diagnostics["fusion/kkt_residual"] <= 1e-8


def test_members_without_any_value_keep_the_smallest_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    wrong_N = (torch.arange(60) + 1) % 4
    logits_NC = 3.0 * torch.nn.functional.one_hot(wrong_N, 4).double()
    noise_MNC = 0.1 * torch.randn(2, 60, 4, generator=generator, dtype=torch.float64)
    fused = fuse(logits_NC + noise_MNC, method="log_pool_optimal", labels=torch.arange(60) % 4)
    assert fused.weights is not None
    assert float(fused.weights.sum()) == pytest.approx(0.05)
    assert fused.diagnostics["fusion/temperature"] == pytest.approx(20.0)
    assert fused.diagnostics["fusion/sum_at_bound"] == 1
    assert fused.diagnostics["fusion/kkt_residual"] <= 1e-8


def test_a_large_ridge_is_the_geometric_mean() -> None:
    expected = fuse(LOG_P_MNC, method="geometric_mean").logits_NC
    for total in ("free", "one"):
        fused = fuse(LOG_P_MNC, method="log_pool_optimal", labels=LABELS_N, sum=total, ridge=1e8)
        torch.testing.assert_close(fused.logits_NC, expected, rtol=0, atol=1e-6)


def test_multilabel_is_the_pool_over_all_labels() -> None:
    predictions = make_predictions("multilabel")
    fused = fuse(predictions.logits_MNC, method="log_pool_optimal", labels=predictions.labels, kind="multilabel")
    assert fused.weights is not None
    # log p(has) - log p(lacks) = sum_m w_m z_m
    expected_NL = (fused.weights[:, None, None] * predictions.logits_MNC).sum(0)
    torch.testing.assert_close(fused.logits_NC, expected_NL, rtol=1e-9, atol=1e-9)


def test_examples_without_label_do_not_count() -> None:
    predictions = make_predictions("classification")
    labels_N = predictions.truth.clone()
    labels_N[::3] = -1
    kept = labels_N >= 0
    some = LogPoolOptimal().combine(replace(predictions, labels=labels_N)).weights
    few = LogPoolOptimal().combine(
        replace(predictions, labels=labels_N[kept], logits_MNC=predictions.logits_MNC[:, kept])
    )
    torch.testing.assert_close(some, few.weights)
    with pytest.raises(EmptyTaskError, match="log_pool_optimal needs at least one labelled example"):
        LogPoolOptimal().combine(replace(predictions, labels=torch.full_like(labels_N, -1)))


def test_bad_fields() -> None:
    with pytest.raises(HyperparameterError, match=r"`sum` should be free or one\. Found `sum = two`"):
        LogPoolOptimal(sum="two")  # type: ignore[arg-type]
    for ridge in (-0.1, math.inf, math.nan):
        with pytest.raises(HyperparameterError, match="`ridge` should be a finite number >= 0"):
            LogPoolOptimal(ridge=ridge)
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy=.*least_squares_optimal\?"):
        LogPoolOptimal().check_kind("regression")
