from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions, probabilities
from tests.strategy.output_fusion.pool import describe, make_development
from transfuse.strategy.output_fusion import Average, WeightedAverage, fuse
from transfuse.strategy.weights import Given, InverseLoss, LeastSquaresOptimal, SoftmaxScore
from transfuse.types import HyperparameterError, IncompatibleStrategyError, Task, TaskKind

GOLDEN = Path(__file__).parents[2] / "golden" / "output_fusion"
KINDS: list[TaskKind] = ["classification", "multilabel", "regression"]


def test_golden_given_weights() -> None:
    golden = np.load(GOLDEN / "pools_and_votes.npz")
    fused = fuse(np.log(golden["in_probs"]), method="weighted_average", weights=golden["in_weights"])
    np.testing.assert_allclose(fused.logits_NC.exp().numpy(), golden["out_weighted_average"], atol=1e-9)
    assert fused.weights is not None
    assert float(fused.weights[1]) == 0.0


def test_golden_pooled_weights_of_a_multilabel_task() -> None:
    golden = np.load(GOLDEN / "multilabel.npz")
    fused = fuse(golden["in_logits"], method="weighted_average", kind="multilabel", labels=golden["in_y"])
    assert fused.weights is not None
    np.testing.assert_allclose(fused.weights.numpy(), golden["out_pooled_weights_M"], atol=1e-5)
    p_NC = fused.logits_NC.sigmoid().numpy()
    nll = -np.log(np.where(golden["in_y"] == 1, p_NC, 1 - p_NC)).mean()
    assert nll == pytest.approx(float(golden["out_pooled_nll"]), abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_uniform_weights_are_the_average(kind: TaskKind) -> None:
    predictions = make_predictions(kind, members=3)
    found = WeightedAverage(weights=Given(values=[2, 2, 2])).combine(predictions)(predictions.logits_MNC)
    torch.testing.assert_close(found, Average().combine(predictions)(predictions.logits_MNC), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["probability", "logit"])
def test_all_weight_on_one_member_gives_that_member(kind: TaskKind, space: str) -> None:
    predictions = make_predictions(kind, members=3)
    fused = fuse(predictions.logits_MNC, method="weighted_average", kind=kind, weights=[0, 1, 0], space=space)
    torch.testing.assert_close(
        probabilities(fused.logits_NC, kind), probabilities(predictions.logits_MNC[1], kind), rtol=0, atol=1e-12
    )


def test_logit_space_is_the_softmax_of_the_weighted_logits() -> None:
    predictions = make_predictions("classification", members=3)
    fused = fuse(predictions.logits_MNC, method="weighted_average", weights=[0.5, 0.3, 0.2], space="logit")
    weighted_NC = np.einsum("m,mnc->nc", [0.5, 0.3, 0.2], predictions.logits_MNC.numpy())
    exponentials_NC = np.exp(weighted_NC)
    expected = exponentials_NC / exponentials_NC.sum(1, keepdims=True)
    np.testing.assert_allclose(fused.logits_NC.exp().numpy(), expected, atol=1e-12)


def test_members_and_their_weights_permute_together() -> None:
    predictions = make_predictions("classification", members=3)
    one = fuse(predictions.logits_MNC, method="weighted_average", weights=[0.5, 0.3, 0.2])
    two = fuse(predictions.logits_MNC[[2, 0, 1]], method="weighted_average", weights=[0.2, 0.5, 0.3])
    torch.testing.assert_close(one.logits_NC, two.logits_NC, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [LeastSquaresOptimal(), SoftmaxScore(metric="rmse"), InverseLoss(metric="rmse")])
def test_a_shifted_member_gains_no_weight(rule: LeastSquaresOptimal | SoftmaxScore | InverseLoss) -> None:
    """A weight measures how right a member is, not how large its outputs are."""
    predictions = make_predictions("regression", members=3)
    shifted = predictions.logits_MNC.clone()
    shifted[0] += 100.0
    before = rule.weights(predictions).values_M
    after = rule.weights(replace(predictions, logits_MNC=shifted)).values_M
    assert float(before[0]) > 0.3
    assert float(after[0]) < 0.01


def test_a_constant_member_with_a_large_mean_gains_no_weight() -> None:
    predictions = make_predictions("regression", members=3)
    constant = predictions.logits_MNC.clone()
    constant[2] = 50.0
    found = LeastSquaresOptimal().weights(replace(predictions, logits_MNC=constant))
    assert float(found.values_M[2]) < 0.01


def test_regression_is_refused_with_the_fitting_rule() -> None:
    task = Task(name="y", kind="regression", outputs=1)
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy/weights=least_squares_optimal\?"):
        WeightedAverage().check(make_development([task]), describe([task], 3))


def test_classification_is_refused_by_least_squares() -> None:
    task = Task(name="y", kind="classification", outputs=3)
    with pytest.raises(IncompatibleStrategyError, match=r"Did you mean strategy/weights=nll_optimal\?"):
        WeightedAverage(weights=LeastSquaresOptimal()).check(make_development([task]), describe([task], 3))


def test_number_of_given_weights_is_checked_before_training() -> None:
    task = Task(name="y", kind="classification", outputs=3)
    with pytest.raises(HyperparameterError, match=r"`weights.values` should have 5 entries \(one a member\). Found 3."):
        WeightedAverage(weights=Given(values=[1, 2, 3])).check(make_development([task]), describe([task], 5))


def test_unknown_space() -> None:
    with pytest.raises(HyperparameterError, match="Found `space = log`"):
        WeightedAverage(space="log")  # type: ignore[arg-type]
