from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.metrics import per_example
from transfuse.strategy.output_fusion import LogOpinionPool, fuse
from transfuse.types import HyperparameterError, IncompatibleStrategyError, Task

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_geometric_mean_and_weighted_log_pool() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    log_probs = np.log(golden["in_probs"])
    plain = fuse(log_probs, method="geometric_mean")
    np.testing.assert_allclose(plain.logits_NC.exp().numpy(), golden["out_geometric"], atol=1e-9)
    weighted = fuse(log_probs, method="geometric_mean", weights=golden["in_weights"])
    np.testing.assert_allclose(weighted.logits_NC.exp().numpy(), golden["out_log_pool_weighted"], atol=1e-9)


def test_example_by_example_its_nll_is_at_most_the_weighted_mean() -> None:
    predictions, weights = make_predictions("classification", members=3), [0.2, 0.5, 0.3]
    task = Task(name="y", kind="classification", outputs=4)
    fused = fuse(predictions.logits_MNC, method="geometric_mean", weights=weights).logits_NC
    members_MN = torch.stack([per_example(task, z_NC, predictions.truth, "nll") for z_NC in predictions.logits_MNC])
    mean_N = (torch.tensor(weights, dtype=torch.float64)[:, None] * members_MN).sum(0)
    assert (per_example(task, fused, predictions.truth, "nll") <= mean_N + 1e-10).all()


def test_no_member_forbids_a_class_alone() -> None:
    log_probs_MNC = torch.tensor([[[0.0, -1e6]], [[-3.0, -0.05]]], dtype=torch.float64)
    fused = fuse(log_probs_MNC, method="geometric_mean", floor=1e-4).logits_NC[0]
    second = log_probs_MNC[1, 0].log_softmax(0)
    # half of log p with p_1 floored at 1e-4, against half of log p of the other member
    odds = 0.5 * (math.log(1e-4) - 0.0) + 0.5 * float(second[1] - second[0])
    assert float(fused[1] - fused[0]) == pytest.approx(odds, rel=1e-9)


def test_labels_are_renormalized_over_having_and_lacking() -> None:
    logits_MNC = torch.tensor([[[2.0]], [[-1.0]]], dtype=torch.float64)
    fused = fuse(logits_MNC, method="geometric_mean", kind="multilabel").logits_NC
    p = torch.tensor([2.0, -1.0], dtype=torch.float64).sigmoid().numpy()
    has, lacks = np.sqrt(p.prod()), np.sqrt((1 - p).prod())
    assert float(fused.sigmoid()) == pytest.approx(has / (has + lacks), rel=1e-12)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"`floor` should be in \(0, 1\)\. Found `floor = 0`"):
        LogOpinionPool(floor=0)
    with pytest.raises(
        IncompatibleStrategyError, match=r"Found regression\. Did you mean strategy=output_fusion/average"
    ):
        fuse(torch.zeros(2, 3, 1), method="geometric_mean", kind="regression")
