from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import Borda, fuse
from transfuse.strategy.output_fusion.borda import borda_points
from transfuse.types import EmptyTaskError, HyperparameterError, NeedsContextError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_points() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    points = borda_points(torch.from_numpy(np.log(golden["in_probs"])))
    np.testing.assert_allclose(points.numpy(), golden["out_borda_mean_points"], atol=1e-12)
    fused = fuse(np.log(golden["in_probs"]), method="borda", temperature=2.0).logits_NC
    expected = torch.from_numpy(golden["out_borda_mean_points"] / 2.0).softmax(1)
    torch.testing.assert_close(fused.exp(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_the_fitted_temperature_has_the_lowest_nll(kind: str) -> None:
    predictions = make_predictions(kind, examples=200)  # type: ignore[arg-type]
    fused = fuse(predictions.logits_MNC, method="borda", kind=kind, labels=predictions.truth)  # type: ignore[arg-type]
    points_EO = borda_points(predictions.log_outcomes_MEO)

    def nll(temperature: float) -> float:
        log_p_EO = (points_EO / temperature).log_softmax(1)
        return -float(log_p_EO.gather(1, predictions.outcomes_E[:, None]).mean())

    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert fused.diagnostics["fusion/temperature"] == pytest.approx(best.x, rel=1e-4)


def test_labels_are_needed_to_fit_and_only_then() -> None:
    logits_MNC = make_predictions("classification").logits_MNC
    with pytest.raises(NeedsContextError, match="labels"):
        fuse(logits_MNC, method="borda")
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        fuse(logits_MNC, method="borda", labels=torch.full((40,), -1))
    assert fuse(logits_MNC, method="borda", temperature=1.0).logits_NC.shape == (40, 4)


@pytest.mark.parametrize("temperature", [0.0, -1.0, "fitted", float("inf")])
def test_bad_temperatures_are_refused(temperature: float | str) -> None:
    with pytest.raises(HyperparameterError, match=r"`temperature` should be > 0 or fit\."):
        Borda(temperature=temperature)  # type: ignore[arg-type]
