from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import TrimmedMean, fuse
from transfuse.types import HyperparameterError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


@pytest.mark.parametrize("trim", [0.2, 0.3])
def test_golden(trim: float) -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    fused = fuse(np.log(golden["in_probs"]), method="trimmed_mean", trim=trim)
    np.testing.assert_allclose(fused.logits_NC.exp().numpy(), golden[f"out_trimmed_{trim}"], atol=1e-9)


@pytest.mark.parametrize("members", [1, 4, 5, 10])
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.34, 0.49])
def test_values_are_trimmed_as_scipy_does(members: int, trim: float) -> None:
    logits_MNC = make_predictions("regression", members=members).logits_MNC
    fused = fuse(logits_MNC, method="trimmed_mean", kind="regression", trim=trim)
    np.testing.assert_allclose(fused.logits_NC.numpy(), stats.trim_mean(logits_MNC.numpy(), trim, axis=0), rtol=1e-12)


def test_without_trimming_it_is_the_average_and_in_the_limit_the_median() -> None:
    logits_MNC = make_predictions("classification", members=3).logits_MNC
    for trim, other in ((0.0, "average"), (0.34, "median")):
        trimmed = fuse(logits_MNC, method="trimmed_mean", trim=trim).logits_NC
        torch.testing.assert_close(trimmed, fuse(logits_MNC, method=other).logits_NC, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("members", "trimmed"), [(4, 0), (5, 1), (10, 2)])
def test_the_record_says_how_many_are_cut(members: int, trimmed: int) -> None:
    logits_MNC = make_predictions("classification", members=members).logits_MNC
    assert fuse(logits_MNC, method="trimmed_mean").diagnostics == {"fusion/trimmed": trimmed}


@pytest.mark.parametrize("trim", [0.5, -0.1, float("nan")])
def test_bad_shares_are_refused(trim: float) -> None:
    with pytest.raises(HyperparameterError, match=r"`trim` should be in \[0, 0\.5\)\. Found `trim = "):
        TrimmedMean(trim=trim)
