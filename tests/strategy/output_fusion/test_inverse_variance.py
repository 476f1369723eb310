from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import InverseVariance, fuse
from transfuse.strategy.output_fusion.inverse_variance import inverse_variance_weights
from transfuse.strategy.predictions import Predictions
from transfuse.types import EmptyTaskError, HyperparameterError, IncompatibleStrategyError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "regression.npz"


def weights(predictions: Predictions, **fields: object) -> np.ndarray:
    found = InverseVariance(**fields).combine(predictions).weights  # type: ignore[arg-type]
    assert found is not None
    return found.numpy()


@pytest.mark.parametrize("variance", ["residual", "mse"])
def test_golden(variance: str) -> None:
    golden = np.load(GOLDEN)
    fusion = fuse(
        golden["in_preds"][:, :, None],
        method="inverse_variance",
        labels=golden["in_y"][:, None],
        kind="regression",
        variance=variance,
    )
    assert fusion.weights is not None
    expected = golden["out_inverse_variance_weights" if variance == "residual" else "out_inverse_mse_weights"]
    np.testing.assert_allclose(fusion.weights[:, 0].numpy(), expected, atol=1e-8)
    np.testing.assert_allclose(fusion.logits_NC[:, 0].numpy(), expected @ golden["in_preds"], atol=1e-7)


def test_each_target_has_its_own_weights_whatever_its_unit() -> None:
    predictions = make_predictions("regression", members=4, outputs=2)
    scale_C = torch.tensor([1e-6, 1e4], dtype=torch.float64)
    scaled = Predictions(
        logits_MNC=predictions.logits_MNC * scale_C, kind="regression", labels=predictions.truth.double() * scale_C
    )
    np.testing.assert_allclose(weights(scaled), weights(predictions), rtol=1e-9)
    errors = (predictions.logits_MNC - predictions.truth).numpy()
    expected = 1 / errors.var(axis=1)
    np.testing.assert_allclose(weights(predictions), expected / expected.sum(0), rtol=1e-9)


def test_a_bias_counts_for_mse_only() -> None:
    predictions = make_predictions("regression", members=3)
    shifted = Predictions(
        logits_MNC=predictions.logits_MNC + torch.tensor([50.0, 0.0, 0.0])[:, None, None],
        kind="regression",
        labels=predictions.truth,
    )
    np.testing.assert_allclose(weights(shifted), weights(predictions), rtol=1e-9)
    assert (weights(shifted, variance="mse")[0] < 0.01 * weights(predictions, variance="mse")[0]).all()


def test_perfect_members_share_the_weight() -> None:
    found = inverse_variance_weights(torch.tensor([[0.0], [0.0], [1.0]]))
    np.testing.assert_allclose(found[:, 0].numpy(), [0.5, 0.5, 0.0], atol=1e-11)
    assert inverse_variance_weights(torch.zeros(4, 1))[:, 0].tolist() == [0.25] * 4
    floored = inverse_variance_weights(torch.tensor([[0.0], [1.0]]), floor=0.25)
    np.testing.assert_allclose(floored[:, 0].numpy(), [0.8, 0.2])


def test_unlabelled_values_do_not_count() -> None:
    predictions = make_predictions("regression", members=3, outputs=2)
    predictions.truth[10:, 0] = torch.nan
    first = Predictions(logits_MNC=predictions.logits_MNC[:, :10], kind="regression", labels=predictions.truth[:10])
    np.testing.assert_allclose(weights(predictions)[:, 0], weights(first)[:, 0])
    predictions.truth[:, 0] = torch.nan
    with pytest.raises(EmptyTaskError, match="at least one labelled example a target"):
        weights(predictions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variance": "std"}, "`variance` should be residual, mse or predicted. Found `variance = std`."),
        ({"floor": 0.0}, r"`floor` should be in \(0, 1\]. Found `floor = 0.0`."),
    ],
)
def test_ranges(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        InverseVariance(**fields)  # type: ignore[arg-type]


def test_classes_have_no_variance() -> None:
    predictions = make_predictions("classification")
    with pytest.raises(IncompatibleStrategyError, match="output_fusion/weighted_average"):
        fuse(predictions.logits_MNC, method="inverse_variance", labels=predictions.labels)
