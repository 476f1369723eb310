from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import MajorityVote, fuse
from transfuse.types import HyperparameterError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def shares(log_smoothed: torch.Tensor, smoothing: float, classes: int) -> np.ndarray:
    """The vote shares back from `log((s + a / C) / (1 + a))`."""
    return (log_smoothed.exp() * (1 + smoothing) - smoothing / classes).numpy()


def test_golden_shares_of_votes() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    log_probs = np.log(golden["in_probs"])
    plain = fuse(log_probs, method="majority_vote", smoothing=0.1, ties="first").logits_NC
    np.testing.assert_allclose(shares(plain, 0.1, 4), golden["out_vote_share"], atol=1e-9)
    np.testing.assert_array_equal(plain.argmax(1).numpy(), golden["out_majority_onehot"].argmax(1))
    weighted = fuse(log_probs, method="majority_vote", ties="first", weights=golden["in_weights"]).logits_NC
    np.testing.assert_allclose(shares(weighted, 0.01, 4), golden["out_weighted_vote_share"], atol=1e-9)


def test_golden_votes_on_labels() -> None:
    golden = np.load(GOLDEN / "multilabel.npz")
    fused = fuse(golden["in_logits"], method="majority_vote", kind="multilabel", ties="first").logits_NC
    np.testing.assert_allclose(fused.sigmoid() * 1.01 - 0.005, golden["out_vote_share"], atol=1e-9)


def test_a_tie_goes_to_the_larger_mean_probability_or_to_the_first_class() -> None:
    logits_MNC = torch.tensor([[[0.55, 0.25, 0.20]], [[0.05, 0.15, 0.80]]]).log()
    assert int(fuse(logits_MNC, method="majority_vote", ties="first").logits_NC.argmax()) == 0
    soft = fuse(logits_MNC, method="majority_vote").logits_NC
    assert int(soft.argmax()) == 2
    np.testing.assert_allclose(shares(soft, 0.01, 3), [[0.5, 0.0, 0.5]], atol=3e-6)
    assert float(soft.exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_one_member_keeps_its_decisions(kind: str) -> None:
    logits_MNC = make_predictions(kind, members=1).logits_MNC  # type: ignore[arg-type]
    fused_NC = fuse(logits_MNC, method="majority_vote", kind=kind).logits_NC  # type: ignore[arg-type]
    if kind == "classification":
        assert torch.equal(fused_NC.argmax(1), logits_MNC[0].argmax(1))
    else:
        assert torch.equal(fused_NC > 0, logits_MNC[0] > 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"smoothing": 0.0}, r"`smoothing` should be > 0"), ({"ties": "last"}, r"`ties` should be soft or first")],
)
def test_bad_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        MajorityVote(**fields)  # type: ignore[arg-type]
