from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from transfuse.training.probe import fit_probe


@pytest.mark.parametrize("c", ["0.01", "1.0"])
def test_golden_optimum(golden_transfer: Path, c: str) -> None:
    expected = json.loads((golden_transfer / "linear_probe.json").read_text())
    data = np.load(golden_transfer / f"scores_{expected['features']}.npz")
    entry = expected["by_c"][c]
    probe = fit_probe(data["features"], data["labels"], kind="classification", outputs=5, c=float(c))
    assert probe.gradient_norm < 1e-6
    assert probe.objective == pytest.approx(entry["objective"], rel=1e-6)
    np.testing.assert_allclose(probe.weight_CF, entry["coefficients"], atol=1e-3)
    np.testing.assert_allclose(probe.bias_C - probe.bias_C.mean(), entry["intercepts"], atol=1e-3)


def test_ridge_is_the_normal_equations() -> None:
    stream = np.random.default_rng(0)
    features_NF, targets_NC = stream.normal(size=(30, 4)), stream.normal(size=(30, 2))
    probe = fit_probe(features_NF, targets_NC, kind="regression", outputs=2, c=0.3)
    residual_NC = probe(features_NF) - targets_NC
    np.testing.assert_allclose(2 * 0.3 * residual_NC.T @ features_NF + probe.weight_CF, 0, atol=1e-10)
    np.testing.assert_allclose(residual_NC.sum(0), 0, atol=1e-10)


def test_labels_are_logistic_regressions_of_their_own() -> None:
    stream = np.random.default_rng(0)
    features_NF = stream.normal(size=(60, 3))
    labels_NC = (features_NF[:, :2] + stream.normal(size=(60, 2)) > 0).astype(float)
    both = fit_probe(features_NF, labels_NC, kind="multilabel", outputs=2, c=2.0)
    for index in range(2):
        alone = fit_probe(features_NF, labels_NC[:, index : index + 1], kind="multilabel", outputs=1, c=2.0)
        np.testing.assert_allclose(both.weight_CF[index], alone.weight_CF[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
@pytest.mark.parametrize("c", [1e-4, 1.0, 1e4])
def test_the_gradient_vanishes_at_any_penalty(kind: str, c: float) -> None:
    stream = np.random.default_rng(0)
    features_NF = stream.normal(size=(200, 6))
    labels_N = (features_NF[:, :3] + stream.normal(size=(200, 3))).argmax(1)
    targets = labels_N if kind == "classification" else np.eye(3)[labels_N]
    probe = fit_probe(features_NF, targets, kind=kind, outputs=3, c=c)
    assert probe.gradient_norm < 1e-6
