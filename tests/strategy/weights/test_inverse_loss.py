from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, root_mean_squared_error

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import InverseLoss, inverse_loss_weights
from transfuse.types import HyperparameterError, PredictionError


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_weights_are_inverse_powers_of_the_loss(power: float) -> None:
    predictions = make_predictions("classification", members=4)
    losses = np.array([log_loss(predictions.truth, z_NC.softmax(1).numpy()) for z_NC in predictions.logits_MNC])
    found = InverseLoss(power=power).weights(predictions).values_M
    np.testing.assert_allclose(found.numpy(), losses**-power / (losses**-power).sum(), atol=1e-9)


def test_regression_by_rmse() -> None:
    predictions = make_predictions("regression", members=3, outputs=1)
    losses = np.array([root_mean_squared_error(predictions.truth, values) for values in predictions.logits_MNC])
    found = InverseLoss(metric="rmse").weights(predictions).values_M
    np.testing.assert_allclose(found.numpy(), (1 / losses) / (1 / losses).sum(), atol=1e-7)


def test_members_without_loss_share_all_weight() -> None:
    assert inverse_loss_weights(torch.tensor([0.0, 0.3, 0.0])).tolist() == [0.5, 0.0, 0.5]


def test_large_powers_of_tiny_losses_do_not_overflow() -> None:
    found = inverse_loss_weights(torch.tensor([1e-200, 1e-200, 1e-100], dtype=torch.float64), power=10.0)
    assert found.tolist() == [0.5, 0.5, 0.0]


def test_negative_losses_are_refused() -> None:
    predictions = Predictions(
        logits_MNC=torch.zeros(2, 3, 4), kind="classification", scores_M=torch.tensor([-1.0, 1.0])
    )
    with pytest.raises(PredictionError, match="Losses should be >= 0"):
        InverseLoss().weights(predictions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "accuracy"}, "should be one where lower is better. Found `weights.metric = accuracy`."),
        ({"power": -1.0}, "`weights.power` should be > 0. Found `weights.power = -1.0`."),
    ],
)
def test_ranges(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        InverseLoss(**fields)
