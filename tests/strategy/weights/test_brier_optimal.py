from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from transfuse.metrics import score
from transfuse.strategy.output_fusion import fuse
from transfuse.strategy.weights import BrierOptimal, brier_optimal_weights
from transfuse.types import EmptyTaskError, Task, TaskKind


@pytest.mark.parametrize("seed", range(5))
def test_at_most_the_score_of_a_general_optimizer(seed: int) -> None:
    predictions = make_predictions("classification", members=6, examples=80, seed=seed)
    errors = (probabilities(predictions.logits_MNC, "classification") - torch.eye(4)[predictions.truth]).numpy()

    def brier(w: np.ndarray) -> float:
        return float((np.tensordot(w, errors, 1) ** 2).sum(1).mean())

    reference = minimize(
        brier,
        np.full(6, 1 / 6),
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14},
        method="SLSQP",
    )
    weights_M, gap = brier_optimal_weights(predictions.log_outcomes_MEO, predictions.outcomes_E)
    assert brier(weights_M.numpy()) == pytest.approx(reference.fun, abs=1e-7)
    assert brier(weights_M.numpy()) <= reference.fun + 1e-12
    assert 0 <= gap <= 1e-12
    assert float(weights_M.sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_at_most_the_score_of_members_and_of_other_rules(kind: TaskKind) -> None:
    predictions = make_predictions(kind, members=7)
    task = Task(name="y", kind=kind, outputs=4)

    def brier(rule: str) -> float:
        fusion = fuse(
            predictions.logits_MNC, method="weighted_average", labels=predictions.labels, kind=kind, weights=rule
        )
        return score(task, fusion.logits_NC, predictions.truth, "brier")

    found = brier("brier_optimal")
    assert found <= float(predictions.scores("brier").min()) + 1e-12
    assert found <= min(brier("uniform"), brier("nll_optimal")) + 1e-12


def test_two_members_in_closed_form() -> None:
    # errors a and b with a'b = 0: w = |b|^2 / (|a|^2 + |b|^2)
    p_MEO = torch.tensor([[[0.9, 0.1], [1.0, 0.0]], [[1.0, 0.0], [0.8, 0.2]]], dtype=torch.float64).clamp(min=1e-300)
    weights_M, _ = brier_optimal_weights(p_MEO.log(), torch.tensor([0, 0]))
    np.testing.assert_allclose(weights_M.numpy(), [0.8, 0.2], atol=1e-12)


def test_certificate_and_unlabelled_examples() -> None:
    predictions = make_predictions("classification", members=4)
    diagnostics = BrierOptimal().weights(predictions).diagnostics
    assert 0 <= diagnostics["fusion/frank_wolfe_gap"] <= 1e-12
    labels_N = predictions.truth.clone()
    labels_N[10:] = -1
    partly, _ = brier_optimal_weights(predictions.log_outcomes_MEO, labels_N)
    first, _ = brier_optimal_weights(predictions.log_outcomes_MEO[:, :10], labels_N[:10])
    torch.testing.assert_close(partly, first)
    with pytest.raises(EmptyTaskError, match="brier_optimal needs at least one labelled example"):
        brier_optimal_weights(predictions.log_outcomes_MEO, torch.full((40,), -1))
