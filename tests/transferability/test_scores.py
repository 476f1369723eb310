from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import transfuse
from transfuse.transferability.logme import evidence, max_evidence
from transfuse.types import HyperparameterError, IncompatibleScoreError, ScoreSaturatedError, TransferabilityWarning

CASES = ("n200_d32_c5", "n60_d128_c5_wide", "n250_d16_c4_imbalanced", "n300_d64_c10_weak", "n500_d48_c3_strong")
FEATURES = ("logme", "h_score", "linear_probe", "nearest_neighbors", "gbc", "transrate")


@pytest.fixture(params=CASES)
def case(request, golden_transfer: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    expected = json.loads((golden_transfer / "scores.json").read_text())["scores"][request.param]
    return dict(np.load(golden_transfer / f"scores_{request.param}.npz")), expected


@pytest.mark.filterwarnings("ignore::transfuse.types.TransferabilityWarning")
def test_golden(case) -> None:
    data, expected = case
    features, labels = data["features"], data["labels"]
    score = transfuse.transferability
    assert score(features, labels, score="logme") == pytest.approx(expected["logme_classification"], abs=1e-6)
    found = score(features, data["regression_targets"], score="logme")
    assert found == pytest.approx(expected["logme_regression"], abs=1e-6)
    assert score(data["source_probs"], labels, score="leep") == pytest.approx(expected["leep"], rel=1e-9)
    assert score(data["source_probs"], labels, score="nce") == pytest.approx(expected["nce"], rel=1e-9)
    assert score(features, labels, score="h_score") == pytest.approx(expected["h_score_regularized"], rel=1e-9)
    if len(features) > features.shape[1]:
        assert score(features, labels, score="h_score", regularize=False) == pytest.approx(
            expected["h_score"], rel=1e-9
        )
    found = score(features, labels, score="transrate")
    assert found == pytest.approx(expected["transrate_eps1e-4_trace_normalized_size_weighted"], rel=1e-9)
    found = score(features, labels, score="transrate", normalize="none", weights="equal")
    assert found == pytest.approx(expected["transrate_eps1e-4_unweighted_classes"], rel=1e-9)
    found = score(features, labels, score="gbc", dimensions=None)
    assert found == pytest.approx(expected["gbc_spherical_no_pca"], rel=1e-9, abs=1e-300)
    for k in (1, 5):
        found = score(features, labels, score="nearest_neighbors", k=k)
        assert found == expected[f"knn_leave_one_out_k{k}_euclidean"]


def data_of(num_examples: int = 60, num_features: int = 8) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    labels = np.arange(num_examples) % 3
    return stream.normal(size=(num_examples, num_features)) + 2.0 * np.eye(num_features)[labels], labels


@pytest.mark.parametrize("score", FEATURES)
def test_order_names_and_inputs(score: str) -> None:
    features, labels = data_of()
    before = features.copy()
    found = transfuse.transferability(features, labels, score=score)
    assert (features == before).all()
    if score != "linear_probe":
        order = np.random.default_rng(1).permutation(len(labels))
        assert transfuse.transferability(features[order], labels[order], score=score) == pytest.approx(found, rel=1e-10)
        renamed = np.array([7, 2, 5])[labels]
        fields = {"k": 1} if score == "nearest_neighbors" else {}
        found = transfuse.transferability(features, labels, score=score, **fields)
        assert transfuse.transferability(features, renamed, score=score, **fields) == pytest.approx(found, rel=1e-10)
    tensors = torch.from_numpy(features), torch.from_numpy(labels)
    assert transfuse.transferability(*tensors, score=score) == pytest.approx(
        transfuse.transferability(features, labels, score=score), rel=1e-12
    )


@pytest.mark.parametrize("score", ["logme", "h_score", "nearest_neighbors", "transrate"])
def test_rotations_change_nothing(score: str) -> None:
    features, labels = data_of()
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))
    found = transfuse.transferability(features, labels, score=score)
    assert transfuse.transferability(features @ turn, labels, score=score) == pytest.approx(found, rel=1e-8)


@pytest.mark.parametrize("score", FEATURES)
def test_shuffled_labels_score_lower(score: str) -> None:
    features, labels = data_of()
    found = transfuse.transferability(features, labels, score=score)
    for seed in range(10):
        shuffled = np.random.default_rng(seed).permutation(labels)
        assert transfuse.transferability(features, shuffled, score=score) < found


@pytest.mark.parametrize(("num_examples", "num_features"), [(12, 20), (20, 20), (40, 6)])
def test_logme_is_the_dense_evidence_and_its_maximum(num_examples: int, num_features: int) -> None:
    stream = np.random.default_rng(0)
    features = stream.normal(size=(num_examples, num_features))
    features[:, 1] = features[:, 0]
    targets = features[:, :1] + 0.5 * stream.normal(size=(num_examples, 1))
    best = max_evidence(features, targets)[0]

    def dense(alpha: float, beta: float) -> float:
        covariance = np.eye(num_examples) / beta + features @ features.T / alpha
        _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
        return -0.5 * float(logdet + targets[:, 0] @ np.linalg.solve(covariance, targets[:, 0])) / num_examples

    values = [dense(*np.exp(stream.uniform(-4, 4, 2))) for _ in range(100)]
    assert max(values) <= best + 1e-10
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    kept = singular > 1e-10
    x = left[:, kept].T @ targets
    rest = np.zeros(1) if kept.sum() == num_examples else (targets**2).sum(0) - (x**2).sum(0)
    q = float((x[:, 0] ** 2 * (2.0 / (2.0 + singular[kept] ** 2))).sum() + rest[0])
    beta = num_examples / q
    found = evidence(np.full((1, 1), np.log(2.0)), singular[kept] ** 2, x, rest, num_examples)[0, 0]
    assert found == pytest.approx(dense(2.0 * beta, beta), abs=1e-8)


def test_logme_ignores_scale_dead_and_split_columns() -> None:
    features, labels = data_of()
    found = transfuse.transferability(features, labels, score="logme")
    split = np.concatenate([features, features], axis=1) / np.sqrt(2)
    for same in (3.7 * features, np.concatenate([features, np.zeros((60, 2))], axis=1), split):
        assert transfuse.transferability(same, labels, score="logme") == pytest.approx(found, abs=1e-8)


def test_ranges() -> None:
    _, labels = data_of()
    exact = np.eye(3)[labels]
    assert transfuse.transferability(exact, labels, score="leep") == pytest.approx(0.0, abs=1e-12)
    assert transfuse.transferability(exact, labels, score="nce") == pytest.approx(0.0, abs=1e-12)
    flat = np.full((60, 3), 1 / 3)
    assert transfuse.transferability(flat, labels, score="nce") == pytest.approx(-np.log(3))
    features, _ = data_of()
    assert 0 <= transfuse.transferability(features, labels, score="h_score") <= 2 * 60 / 59
    assert -6 <= transfuse.transferability(features, labels, score="gbc") <= 0


def test_misfits_are_told() -> None:
    features, labels = data_of()
    score = transfuse.transferability
    with pytest.raises(HyperparameterError, match="`labels` should have at least 2 classes. Found 1"):
        score(features, np.zeros(60, dtype=int), score="logme")
    with pytest.raises(HyperparameterError, match="should be finite"):
        score(np.full((60, 2), np.nan), labels, score="logme")
    with pytest.raises(HyperparameterError, match="Found 5 for 60 examples"):
        score(features, labels[:5], score="logme")
    with pytest.raises(HyperparameterError, match="N >= 2"):
        score(features[:1], labels[:1], score="logme")
    with pytest.raises(HyperparameterError, match="Found a negative one"):
        score(features, labels - 1, score="gbc")
    with pytest.raises(HyperparameterError, match="the softmax of these logits"):
        score(features, labels, score="leep")
    with pytest.raises(IncompatibleScoreError, match="is for classes. Found real targets"):
        score(features, labels.astype(float), score="h_score")
    with pytest.raises(ScoreSaturatedError, match="N = 6, D = 8"):
        score(features[:6], labels[:6], score="h_score", regularize=False)
    with pytest.raises(HyperparameterError, match="Did you mean logme"):
        score(features, labels, score="logm")
    with pytest.raises(HyperparameterError, match="has no field `kk`"):
        score(features, labels, score="nearest_neighbors", kk=3)
    with pytest.raises(HyperparameterError, match="`epsilon` should be > 0"):
        score(features, labels, score="transrate", epsilon=0.0)
    with pytest.warns(TransferabilityWarning, match="1 classes with one example are left out"):
        score(features, np.where(np.arange(60) == 0, 9, labels), score="transrate")
    with pytest.warns(TransferabilityWarning, match="underflows"):
        score(features + 1e4 * np.eye(8)[labels], labels, score="gbc")


def test_no_framework_is_loaded() -> None:
    code = (
        "import sys, transfuse; transfuse.transferability([[0., 1.], [1., 0.]], [0, 1], score='logme');"
        "print([m for m in ('hydra', 'pytorch_lightning', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
