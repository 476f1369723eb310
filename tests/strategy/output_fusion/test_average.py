from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from transfuse.strategy.output_fusion import Average, average_log_probabilities, fuse
from transfuse.types import TaskKind

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_mean_of_probabilities() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    fused = fuse(np.log(golden["in_probs"]), method="average")
    np.testing.assert_allclose(fused.logits_NC.exp().numpy(), golden["out_average"], atol=1e-9)
    assert fused.weights is not None
    assert fused.weights.tolist() == [0.2] * 5


def test_golden_multilabel_is_the_mean_of_label_probabilities() -> None:
    golden = np.load(GOLDEN / "multilabel.npz")
    fused = fuse(golden["in_logits"], method="average", kind="multilabel")
    np.testing.assert_allclose(fused.logits_NC.sigmoid().numpy(), golden["out_average"], atol=1e-9)


def test_regression_is_the_mean_of_values() -> None:
    predictions = make_predictions("regression")
    fused = fuse(predictions.logits_MNC, method="average", kind="regression")
    torch.testing.assert_close(fused.logits_NC, predictions.logits_MNC.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_lies_between_the_members(kind: TaskKind) -> None:
    predictions = make_predictions(kind, members=7)
    member_MNC = probabilities(predictions.logits_MNC, kind)
    fused_NC = probabilities(Average().combine(predictions)(predictions.logits_MNC), kind)
    assert (fused_NC >= member_MNC.amin(0) - 1e-12).all()
    assert (fused_NC <= member_MNC.amax(0) + 1e-12).all()


def test_log_loss_and_brier_are_at_most_the_mean_of_the_members() -> None:
    predictions = make_predictions("classification", members=7)
    p_MNC = probabilities(predictions.logits_MNC, "classification")
    p_NC = Average().combine(predictions)(predictions.logits_MNC).exp()
    rows, labels_N = torch.arange(len(p_NC)), predictions.truth
    assert (-p_NC[rows, labels_N].log() <= -p_MNC[:, rows, labels_N].log().mean(0) + 1e-10).all()
    one_hot = torch.nn.functional.one_hot(labels_N, p_NC.shape[1])
    assert ((p_NC - one_hot).square().sum(1) <= (p_MNC - one_hot).square().sum(2).mean(0) + 1e-10).all()


def test_does_not_saturate_where_probabilities_do() -> None:
    # in float32 softmax([0, -200]) is exactly [1, 0]: averaging probabilities would lose both values
    logits_MNC = torch.tensor([[[0.0, -200.0]], [[0.0, -100.0]]])
    fused = fuse(logits_MNC, method="average").logits_NC
    expected = -100.0 + np.log(0.5)
    torch.testing.assert_close(fused, torch.tensor([[0.0, expected]], dtype=torch.float32), rtol=1e-6, atol=1e-6)


def test_a_weight_of_zero_leaves_a_member_out() -> None:
    log_probs_MEO = torch.tensor([[[0.5, 0.5]], [[0.9, 0.1]]], dtype=torch.float64).log()
    pooled = average_log_probabilities(log_probs_MEO, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(pooled.exp(), torch.tensor([[0.9, 0.1]], dtype=torch.float64))
