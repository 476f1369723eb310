from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from transfuse.strategy.output_fusion import fuse
from transfuse.strategy.output_fusion.median import median_log_probabilities

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_class_wise_median() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    fused = fuse(np.log(golden["in_probs"]), method="median")
    np.testing.assert_allclose(fused.logits_NC.exp().numpy(), golden["out_median"], atol=1e-9)
    assert fused.weights is None


@pytest.mark.parametrize("members", [1, 2, 5, 6])
def test_it_is_the_median_of_probabilities_before_normalization(members: int) -> None:
    predictions = make_predictions("classification", members=members)
    p_MNC = probabilities(predictions.logits_MNC, "classification")
    found = median_log_probabilities(p_MNC.log()).exp().numpy()
    np.testing.assert_allclose(found, np.median(p_MNC.numpy(), axis=0), rtol=1e-12)


@pytest.mark.parametrize("members", [1, 4, 5])
def test_regression_is_the_median_of_values(members: int) -> None:
    predictions = make_predictions("regression", members=members)
    fused = fuse(predictions.logits_MNC, method="median", kind="regression")
    np.testing.assert_allclose(fused.logits_NC.numpy(), np.median(predictions.logits_MNC.numpy(), axis=0), rtol=1e-12)


def test_a_minority_of_absurd_members_does_not_decide() -> None:
    good = torch.tensor([[2.0, 0.0, 0.0]]).repeat(3, 1, 1)
    absurd = torch.tensor([[-1e4, 0.0, 1e4]]).repeat(2, 1, 1)
    fused = fuse(torch.cat([good, absurd]), method="median").logits_NC
    assert fused.isfinite().all()
    torch.testing.assert_close(fused.exp()[0, 0], good[0].softmax(1)[0, 0], rtol=0.15, atol=0)
