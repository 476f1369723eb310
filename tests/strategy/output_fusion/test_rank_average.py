from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import fuse
from transfuse.strategy.output_fusion.rank_average import mean_ranks
from transfuse.types import PredictionError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"


def test_golden_mean_rank() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    scores_MNC = torch.from_numpy(golden["in_probs"])
    reference_MCR = scores_MNC.transpose(1, 2).sort(dim=-1).values
    below_NC, above_NC = mean_ranks(scores_MNC, reference_MCR)
    np.testing.assert_allclose(below_NC[:, 1].numpy(), golden["out_rank_average_class1"], atol=1e-12)
    np.testing.assert_allclose((below_NC + above_NC).numpy(), 1 + 1 / 60, atol=1e-12)


def test_probabilities_are_proportional_to_mean_mid_ranks() -> None:
    predictions = make_predictions("classification")
    p_MNC = predictions.logits_MNC.softmax(-1).numpy().round(1)  # many ties
    fused = fuse(np.log(p_MNC + 1e-9), method="rank_average").logits_NC.exp().numpy()
    normalized = np.exp(torch.from_numpy(np.log(p_MNC + 1e-9)).log_softmax(-1).numpy())
    ranks_NC = rankdata(normalized, axis=1).mean(axis=0)
    np.testing.assert_allclose(fused, ranks_NC / ranks_NC.sum(axis=1, keepdims=True), atol=1e-9)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_a_members_scale_does_not_matter(kind: str) -> None:
    logits_MNC = make_predictions(kind, outputs=2).logits_MNC  # type: ignore[arg-type]
    scaled = logits_MNC * torch.tensor([1.0, 7.0, 0.1], dtype=torch.float64)[:, None, None]
    found = [fuse(logits, method="rank_average", kind=kind).logits_NC for logits in (logits_MNC, scaled)]  # type: ignore[arg-type]
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)


def test_new_examples_are_ranked_among_the_reference() -> None:
    reference = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]])
    combiner = fuse(reference, method="rank_average", kind="multilabel").combiner
    p = combiner(torch.tensor([[[-9.0], [0.0], [9.0]]])).sigmoid().flatten()
    # from below 0.5, 2.5, 4.5 of 4; from above 4.5, 2.5, 0.5
    torch.testing.assert_close(p, torch.tensor([0.1, 0.5, 0.9]))
    with pytest.raises(PredictionError, match=r"fuses 1 members with 1 outputs\. Found 2 with 1"):
        combiner(torch.zeros(2, 3, 1))
