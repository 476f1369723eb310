from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import dirichlet

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from tests.strategy.output_fusion.properties import fresh
from transfuse.randomness import make_generator
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import PseudoBMA, pseudo_bma_weights
from transfuse.strategy.weights.pseudo_bma import dirichlet_shares
from transfuse.types import EmptyTaskError, HyperparameterError

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion" / "simplex_nll_pseudo_bma.npz"


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_golden(case: str) -> None:
    golden = np.load(GOLDEN)
    p_MNC, labels_N = torch.tensor(golden[f"in_{case}_probs"]), torch.tensor(golden[f"in_{case}_y"])
    log_p_MN = p_MNC[:, torch.arange(len(labels_N)), labels_N].log()
    plain = pseudo_bma_weights(log_p_MN).numpy()
    np.testing.assert_allclose(plain, golden[f"out_{case}_arviz_pseudo_bma"], rtol=0, atol=1e-9)
    shares = torch.tensor(dirichlet.rvs([1.0] * len(labels_N), size=1000, random_state=1234))
    bootstrapped = pseudo_bma_weights(log_p_MN, shares).numpy()
    np.testing.assert_allclose(bootstrapped, golden[f"out_{case}_arviz_bb_pseudo_bma"], rtol=0, atol=1e-9)
    rule = Predictions(logits_MNC=p_MNC.log(), kind="classification", labels=labels_N)
    np.testing.assert_allclose(PseudoBMA(bootstrap=False).weights(rule).values_M, plain, rtol=0, atol=1e-9)
    np.testing.assert_allclose(PseudoBMA(samples=20_000).weights(rule).values_M, bootstrapped, rtol=0, atol=0.04)


def test_multi_label_adds_the_labels_of_an_example() -> None:
    predictions = make_predictions("multilabel", members=3)
    p_MNC = probabilities(predictions.logits_MNC, "multilabel")
    p_true_MNC = torch.where(predictions.truth == 1, p_MNC, 1 - p_MNC)
    found = PseudoBMA(bootstrap=False).weights(predictions).values_M
    torch.testing.assert_close(found, p_true_MNC.log().sum((1, 2)).softmax(0))


def test_long_sums_do_not_underflow() -> None:
    log_p_MN = torch.tensor([[-30.0], [-30.001]], dtype=torch.float64).repeat(1, 1000)
    expected = 1 / (1 + np.exp(-1.0))
    assert float(pseudo_bma_weights(log_p_MN)[0]) == pytest.approx(expected, rel=1e-9)


def test_shares_sum_to_one_and_grow_even_with_alpha() -> None:
    spread = []
    for alpha in (0.001, 1.0, 1e6):
        shares = torch.cat(list(dirichlet_shares(50, 30_000, alpha, make_generator("shares"))))
        assert shares.shape == (50, 30_000)
        torch.testing.assert_close(shares.sum(1), torch.ones(50, dtype=torch.float64))
        spread.append(float(shares.max()))
    assert spread[0] > spread[1] > spread[2] > 1 / 30_000


def test_the_bootstrap_keeps_close_members_and_is_plain_for_large_alpha() -> None:
    predictions = make_predictions("classification", members=4, examples=300)
    plain = PseudoBMA(bootstrap=False).weights(predictions).values_M
    assert float(PseudoBMA().weights(predictions).values_M.max()) < float(plain.max())
    even = PseudoBMA(alpha=1e12, samples=10).weights(predictions).values_M
    torch.testing.assert_close(even, plain, rtol=0, atol=1e-3)


def test_chance_comes_from_the_generator() -> None:
    predictions = make_predictions("classification", members=4)
    once, again = (PseudoBMA(samples=5).weights(fresh(predictions)).values_M for _ in range(2))
    assert torch.equal(once, again)
    assert not torch.equal(once, PseudoBMA(samples=5).weights(predictions).values_M)


@pytest.mark.parametrize(("kind", "nothing"), [("classification", -1), ("multilabel", torch.nan)])
def test_unlabelled_examples_do_not_count(kind: str, nothing: float) -> None:
    predictions = make_predictions(kind, members=3)  # type: ignore[arg-type]
    labels = predictions.truth.clone()
    labels[10:] = nothing
    partly = PseudoBMA().weights(replace(fresh(predictions), labels=labels)).values_M
    first = replace(fresh(predictions), logits_MNC=predictions.logits_MNC[:, :10], labels=predictions.truth[:10])
    torch.testing.assert_close(partly, PseudoBMA().weights(first).values_M)
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        PseudoBMA().weights(replace(predictions, labels=torch.full_like(labels, nothing)))


@pytest.mark.parametrize(("field", "value"), [("samples", 0), ("alpha", 0.0), ("alpha", float("nan"))])
def test_ranges(field: str, value: float) -> None:
    with pytest.raises(HyperparameterError, match=f"`weights.{field}` should be"):
        PseudoBMA(**{field: value})  # type: ignore[arg-type]
