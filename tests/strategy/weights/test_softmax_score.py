from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import log_loss

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.weights import SoftmaxScore, softmax_score_weights
from transfuse.types import HyperparameterError

PREDICTIONS = make_predictions("classification", members=4)
LOSSES = [log_loss(PREDICTIONS.truth, z_NC.softmax(1).numpy()) for z_NC in PREDICTIONS.logits_MNC]


def test_losses_enter_with_a_minus() -> None:
    found = SoftmaxScore(temperature=0.3).weights(PREDICTIONS).values_M
    np.testing.assert_allclose(found.numpy(), softmax(-np.array(LOSSES) / 0.3), atol=1e-9)


def test_scores_enter_as_they_are() -> None:
    accuracies = [(z_NC.argmax(1) == PREDICTIONS.truth).double().mean().item() for z_NC in PREDICTIONS.logits_MNC]
    found = SoftmaxScore(metric="accuracy", temperature=0.2).weights(PREDICTIONS).values_M
    np.testing.assert_allclose(found.numpy(), softmax(np.array(accuracies) / 0.2), atol=1e-9)


def test_limits_are_the_best_member_and_uniform() -> None:
    cold = SoftmaxScore(temperature=1e-6).weights(PREDICTIONS).values_M
    hot = SoftmaxScore(temperature=1e6).weights(PREDICTIONS).values_M
    best = torch.nn.functional.one_hot(torch.tensor(int(np.argmin(LOSSES))), 4).double()
    torch.testing.assert_close(cold, best, rtol=0, atol=1e-6)
    torch.testing.assert_close(hot, torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=1e-4)


def test_weights_rise_with_scores() -> None:
    weights_M = softmax_score_weights(torch.linspace(-1, 1, 9), temperature=0.4)
    assert (weights_M.diff() > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "`weights.temperature` should be > 0. Found `weights.temperature = 0.0`."),
        ({"temperature": float("nan")}, "`weights.temperature` should be a finite number > 0."),
        ({"temperature": "x"}, "`weights.temperature` should be a finite number > 0. Found `weights.temperature = x`."),
        ({"metric": "nll_"}, "Did you mean `nll`?"),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        SoftmaxScore(**fields)


def test_the_smallest_temperature_is_the_best_member_alone() -> None:
    scores_M = torch.tensor([-0.5, -0.25, -0.75], dtype=torch.float64)
    assert softmax_score_weights(scores_M, temperature=1e-320).tolist() == [0.0, 1.0, 0.0]
