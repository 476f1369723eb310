from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.metrics import score
from transfuse.strategy.output_fusion import fuse
from transfuse.types import IncompatibleStrategyError, Task

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_mean_of_logits() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    fused = fuse(golden["in_logits"], method="logit_average").logits_NC
    np.testing.assert_allclose(fused.exp().numpy(), golden["out_logit_average"], atol=1e-9)


def test_golden_mean_of_log_odds() -> None:
    golden = np.load(GOLDEN / "multilabel.npz")
    fused = fuse(golden["in_logits"], method="logit_average", kind="multilabel").logits_NC
    np.testing.assert_allclose(fused.sigmoid().numpy(), golden["out_log_odds_average"], atol=1e-9)


def test_for_classes_it_is_the_geometric_mean() -> None:
    logits_MNC = make_predictions("classification", members=5).logits_MNC
    by_logits = fuse(logits_MNC, method="logit_average").logits_NC
    torch.testing.assert_close(by_logits, fuse(logits_MNC, method="geometric_mean").logits_NC, rtol=0, atol=1e-9)


def test_its_nll_is_at_most_the_mean_of_the_members() -> None:
    predictions = make_predictions("classification", members=4)
    task = Task(name="y", kind="classification", outputs=4)
    fused = score(task, fuse(predictions.logits_MNC, method="logit_average").logits_NC, predictions.truth, "nll")
    members = [score(task, logits_NC, predictions.truth, "nll") for logits_NC in predictions.logits_MNC]
    assert fused < np.mean(members)


def test_values_have_no_logits() -> None:
    with pytest.raises(IncompatibleStrategyError, match=r"output_fusion/average\?"):
        fuse(torch.zeros(2, 3, 1), method="logit_average", kind="regression")
