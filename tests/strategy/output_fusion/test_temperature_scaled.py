from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy.optimize import minimize_scalar

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.pool import describe, make_context, make_development
from transfuse.config import read
from transfuse.metrics.temperature import optimal_temperature
from transfuse.randomness import make_generator
from transfuse.strategy.output_fusion import (
    Average,
    LeastSquares,
    LogOpinionPool,
    LogPoolOptimal,
    Median,
    TemperatureScaled,
    WeightedAverage,
    fuse,
)
from transfuse.strategy.output_fusion.cross_fitted import cross_fitted
from transfuse.strategy.predictions import Predictions, log_outcomes
from transfuse.strategy.weights import Given
from transfuse.types import EmptyTaskError, HyperparameterError, IncompatibleStrategyError, Task, TaskKind

CONF = Path(__file__).parents[3] / "conf"
KINDS: list[TaskKind] = ["classification", "multilabel"]


def sharpened(kind: TaskKind, factor: float = 6.0) -> Predictions:
    """Members that are far too sure."""
    predictions = make_predictions(kind, examples=200)
    return replace(predictions, logits_MNC=factor * predictions.logits_MNC)


def nll(predictions: Predictions, logits_NC: torch.Tensor) -> float:
    return float(replace(predictions, logits_MNC=logits_NC[None]).scores("nll"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accept", ["always", "if_better"])
def test_the_fused_prediction_divided_by_its_own_temperature(kind: TaskKind, accept: str) -> None:
    predictions = sharpened(kind)
    plain = fuse(predictions.logits_MNC, method="average", kind=kind).logits_NC
    found = fuse(
        predictions.logits_MNC, method="temperature_scaled", labels=predictions.truth, kind=kind, accept=accept
    )
    temperature = optimal_temperature(log_outcomes(plain, kind), predictions.outcomes_E)
    assert abs(temperature - 1) > 0.2
    assert found.diagnostics["fusion/temperature"] == pytest.approx(temperature, rel=1e-9)
    expected = plain / temperature
    if kind == "classification":
        expected = expected.log_softmax(1)
    torch.testing.assert_close(found.logits_NC, expected, rtol=1e-9, atol=1e-9)
    assert nll(predictions, found.logits_NC) < nll(predictions, plain) - 0.01


@pytest.mark.parametrize("inner", [Average(), Median(), WeightedAverage(), LogOpinionPool()])
def test_no_temperature_of_the_fused_prediction_changes_the_likeliest_class(inner: Average) -> None:
    predictions = sharpened("classification")
    plain = inner.combine(predictions)(predictions.logits_MNC)
    scaled = TemperatureScaled(inner=inner, accept="always").combine(predictions)
    assert torch.equal(scaled(predictions.logits_MNC).argmax(1), plain.argmax(1))
    assert float(scaled.temperature) != pytest.approx(1, abs=1e-3)


def test_members_get_temperatures_of_their_own_before_fusing() -> None:
    predictions = sharpened("classification")
    found = TemperatureScaled(where="members", accept="always").combine(predictions)
    own = [optimal_temperature(logits_NC, predictions.truth) for logits_NC in predictions.logits_MNC]
    assert len(set(own)) == 3
    torch.testing.assert_close(found.temperatures, torch.tensor(own, dtype=torch.float64), rtol=1e-6, atol=0)
    expected = torch.stack([z / t for z, t in zip(predictions.logits_MNC, own, strict=True)]).softmax(2).mean(0)
    torch.testing.assert_close(found(predictions.logits_MNC).exp(), expected, rtol=1e-5, atol=1e-9)
    assert found.diagnostics["fusion/temperature_2"] == pytest.approx(own[2])
    assert float(found.temperature) == 1.0


def test_both_scales_what_members_alone_leave() -> None:
    predictions = sharpened("classification")
    members = TemperatureScaled(where="members", accept="always").combine(predictions)
    both = TemperatureScaled(where="both", accept="always").combine(predictions)
    assert torch.equal(both.temperatures, members.temperatures)
    left = optimal_temperature(members(predictions.logits_MNC), predictions.truth)
    assert float(both.temperature) == pytest.approx(left, rel=1e-6)
    # the average of calibrated members is not sure enough
    assert left < 1


def each_label_sharpened() -> Predictions:
    """Members whose labels need temperatures that differ."""
    predictions = make_predictions("multilabel", outputs=3, examples=200)
    return replace(predictions, logits_MNC=predictions.logits_MNC * torch.tensor([8.0, 2.0, 0.3]))


def lowest_nll(odds_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Each label by itself, from the definition."""
    signed_N = np.where(labels_N == 1, odds_N, -odds_N)
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, -signed_N / np.exp(log_t)).mean(),
        bounds=(-3, 3), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    return float(np.exp(found.x))


def test_each_label_may_have_its_temperature() -> None:
    predictions = each_label_sharpened()
    plain_NC = Average().combine(predictions)(predictions.logits_MNC)
    found = fuse(
        predictions.logits_MNC, method="temperature_scaled", labels=predictions.truth, kind="multilabel", per_label=True
    )
    own = [lowest_nll(plain_NC[:, c].double().numpy(), predictions.truth[:, c].numpy()) for c in range(3)]
    assert max(own) > 2 * min(own)
    assert [found.diagnostics[f"fusion/temperature_label_{c}"] for c in range(3)] == pytest.approx(own, rel=1e-6)
    torch.testing.assert_close(found.logits_NC, plain_NC / torch.tensor(own), rtol=1e-5, atol=1e-5)
    one = TemperatureScaled(accept="always").combine(predictions)(predictions.logits_MNC)
    assert nll(predictions, found.logits_NC) < nll(predictions, one) - 0.01


def test_each_label_of_each_member_may_have_its_temperature() -> None:
    predictions = each_label_sharpened()
    found = TemperatureScaled(where="both", accept="always", per_label=True).combine(predictions)
    z_MNC, y_NC = predictions.logits_MNC.double().numpy(), predictions.truth.numpy()
    own = [[lowest_nll(z_NC[:, c], y_NC[:, c]) for c in range(3)] for z_NC in z_MNC]
    np.testing.assert_allclose(found.temperatures.numpy(), own, rtol=1e-6)
    assert found.diagnostics["fusion/temperature_1_label_2"] == pytest.approx(own[1][2])
    p_NC = (1 / (1 + np.exp(-z_MNC / np.array(own)[:, None]))).mean(0)
    left = [lowest_nll(np.log(p_NC / (1 - p_NC))[:, c], y_NC[:, c]) for c in range(3)]
    np.testing.assert_allclose(found.temperature.numpy(), left, rtol=1e-5)


def test_a_label_without_examples_has_the_common_temperature() -> None:
    predictions = each_label_sharpened()
    predictions.truth[:, 1] = torch.nan
    found = TemperatureScaled(accept="always", per_label=True).combine(predictions)
    common = TemperatureScaled(accept="always").combine(predictions)
    assert float(found.temperature[1]) == float(common.temperature)
    assert float(found.temperature[0]) != float(common.temperature)


def test_temperatures_of_labels_are_for_label_sets() -> None:
    message = "for multilabel. Found classification. Did you mean strategy.per_label=false?"
    with pytest.raises(IncompatibleStrategyError, match=re.escape(message)):
        TemperatureScaled(per_label=True).check_kind("classification")
    TemperatureScaled(per_label=True).check_kind("multilabel")


def test_temperatures_that_do_not_generalize_are_not_accepted() -> None:
    refused = accepted = 0
    for seed in range(12):
        # the truth is drawn from what the members say: no temperature is needed
        generator = make_generator("calibrated", seed)
        logits_NC = torch.randn(30, 3, generator=generator, dtype=torch.float64)
        labels_N = torch.multinomial(logits_NC.softmax(1), 1, generator=generator).squeeze(1)
        predictions = Predictions(logits_MNC=logits_NC.repeat(2, 1, 1), kind="classification", labels=labels_N)
        always = TemperatureScaled(accept="always").combine(predictions)
        if_better = TemperatureScaled().combine(predictions)
        plain = Average().combine(predictions)
        if float(if_better.temperature) == 1.0:
            refused += 1
            torch.testing.assert_close(if_better(predictions.logits_MNC), plain(predictions.logits_MNC))
        else:
            accepted += 1
            assert float(if_better.temperature) == float(always.temperature)
    assert refused > accepted > 0


def test_the_optimal_log_pool_with_a_free_sum_is_at_least_as_good_in_sample() -> None:
    predictions = sharpened("classification")
    scaled = TemperatureScaled(inner=LogOpinionPool(), accept="always").combine(predictions)
    optimal = LogPoolOptimal().combine(predictions)
    found = [nll(predictions, combiner(predictions.logits_MNC)) for combiner in (optimal, scaled)]
    assert found[0] <= found[1] + 1e-8


def test_weights_diagnostics_and_dropped_members_are_those_of_the_inner_strategy() -> None:
    predictions = sharpened("classification")
    found = TemperatureScaled(inner=WeightedAverage(weights=Given(values=[1.0, 0.0, 3.0]))).combine(predictions)
    assert found.weights is not None and found.weights.tolist() == [0.25, 0.0, 0.75]
    assert found.unused == {1}
    assert TemperatureScaled(inner=WeightedAverage()).combine(predictions).diagnostics["fusion/kkt_gap"] <= 1e-8


def test_a_bound_and_a_perfect_fit_are_reported() -> None:
    labels_N = torch.arange(40) % 3
    certain = torch.nn.functional.one_hot(labels_N, 3).double()[None] / 2
    found = fuse(certain, method="temperature_scaled", labels=labels_N, accept="always").diagnostics
    assert found["fusion/temperature_at_bound"] == 1.0
    assert found["fusion/fit_accuracy"] == 1.0
    other = TemperatureScaled(accept="always").combine(sharpened("classification")).diagnostics
    assert other["fusion/temperature_at_bound"] == 0.0
    assert 0.3 < other["fusion/fit_accuracy"] < 1.0


def test_apply_has_cross_fitted_scores_and_a_network_that_agrees() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    context = make_context([task])
    fused = TemperatureScaled(inner=Median()).apply(context)
    plain = Median().apply(context)
    assert fused.fit["digit"]["nll"] < plain.validation["digit"]["nll"]
    assert fused.fit["digit"]["accuracy"] == plain.validation["digit"]["accuracy"]
    assert fused.network is not None
    assert fused.combiners is not None
    inputs = context.development.validation.inputs
    with torch.no_grad():
        stored = fused.combiners["digit"](context.base_models.logits("validation")["digit"])
        torch.testing.assert_close(fused.network(inputs)["digit"], stored, rtol=1e-5, atol=1e-5)


def test_unlabelled_examples_are_left_out() -> None:
    predictions = sharpened("classification")
    half = predictions.at(torch.arange(100), predictions.generator)
    labels_N = predictions.truth.clone()
    labels_N[100:] = -1
    for accept in ("always", "if_better"):
        strategy = TemperatureScaled(accept=accept)  # type: ignore[arg-type]
        some = strategy.combine(replace(predictions, labels=labels_N))
        assert float(some.temperature) == pytest.approx(float(strategy.combine(half).temperature), rel=1e-9)
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        TemperatureScaled(accept="always").combine(replace(predictions, labels=torch.full((200,), -1)))
    labels_N[1:] = -1
    with pytest.raises(
        EmptyTaskError,
        match=r"temperature_scaled has too few validation examples: .* at least 2 labelled ones. Found 1.",
    ):
        TemperatureScaled().combine(replace(predictions, labels=labels_N))


def test_cross_fitted_outputs_come_from_fits_without_the_example() -> None:
    predictions = make_predictions("classification", examples=23)
    seen: list[set[int]] = []
    rows = {tuple(row.tolist()): index for index, row in enumerate(predictions.logits_MNC[0])}

    def fit(part: Predictions) -> list[torch.nn.Module]:
        seen.append({rows[tuple(row.tolist())] for row in part.logits_MNC[0]})
        return [Average().combine(part), Median().combine(part)]

    held_out = cross_fitted(fit, predictions, who="test")  # type: ignore[arg-type]
    assert held_out.logits_MNC.shape == (2, 23, 4)
    torch.testing.assert_close(held_out.logits_MNC[1], Median().combine(predictions)(predictions.logits_MNC))
    assert torch.equal(held_out.truth, predictions.truth)
    assert sorted(len(part) for part in seen) == [18, 18, 18, 19, 19]
    left_out = [set(range(23)) - part for part in seen]
    assert set.union(*left_out) == set(range(23)) and sum(map(len, left_out)) == 23


def test_regression_is_refused() -> None:
    with pytest.raises(IncompatibleStrategyError, match="for classification and multilabel. Found regression"):
        fuse(torch.zeros(2, 3, 1), method="temperature_scaled", labels=torch.zeros(3, 1), kind="regression")


def test_an_inner_strategy_without_probabilities_is_refused() -> None:
    message = "`inner` should fuse probabilities. Found output_fusion/least_squares, for regression only."
    with pytest.raises(HyperparameterError, match=re.escape(message)):
        TemperatureScaled(inner=LeastSquares())


def test_the_inner_strategy_is_checked_too() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    strategy = TemperatureScaled(inner=WeightedAverage(weights=Given(values=[1.0, 2.0])))
    with pytest.raises(HyperparameterError, match=r"`inner.weights.values` should have 3 entries"):
        strategy.check(make_development([task]), describe([task], 3))


@pytest.mark.parametrize(("field", "rule"), [("where", "fused, members or both"), ("accept", "always or if_better")])
def test_unknown_choices_are_refused(field: str, rule: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(f"`{field}` should be {rule}. Found `{field} = never`.")):
        TemperatureScaled(**{field: "never"})  # type: ignore[arg-type]


def test_the_inner_strategy_is_chosen_on_the_command_line(tmp_path: Path) -> None:
    overrides = [
        "strategy=output_fusion/temperature_scaled",
        "strategy/output_fusion@strategy.inner=weighted_average",
        "strategy.inner.space=logit",
        "strategy.where=both",
        f"paths.outputs={tmp_path}",
    ]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        run = read(compose("config", overrides=overrides), tmp_path)
    assert run.strategy == TemperatureScaled(inner=WeightedAverage(space="logit"), where="both")
