from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.strategy.output_fusion import properties
from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.pool import describe, make_development
from tests.strategy.output_fusion.pool import make_context as given_context
from tests.toy import CPU, SIGN, make_context, make_setting
from tests.toy import make_development as make_toy
from transfuse.base_models import Seeds
from transfuse.randomness import make_generator
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.output_fusion import Average, Gating, TemperatureScaled, WeightedAverage, fuse
from transfuse.strategy.output_fusion.gate import Gate, GateNetwork, PackedGate, gated
from transfuse.strategy.output_fusion.meta_features import log_features
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights import LeastSquaresOptimal
from transfuse.training.fit import Fit
from transfuse.types import (
    EmptyTaskError,
    HyperparameterError,
    IncompatibleStrategyError,
    NeedsContextError,
    PredictionError,
    Task,
    TaskKind,
)

KINDS: list[TaskKind] = ["classification", "multilabel", "regression"]
DIGIT = Task(name="digit", kind="classification", outputs=3)


def trainable(predictions: Predictions) -> Predictions:
    return replace(predictions, fit=Fit(CPU))


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: pytest.FixtureRequest) -> tuple[Predictions, Gate]:
    predictions = trainable(make_predictions(request.param, examples=80))
    return predictions, Gating().combine(predictions)


def nll(combined: Tensor, predictions: Predictions) -> float:
    return float(replace(predictions, logits_MNC=combined.detach()[None]).scores("nll"))


def experts(kind: str, examples: int = 400) -> Predictions:
    """Two members that are right where the first input is positive and negative, or large and small."""
    generator = make_generator("experts")
    inputs_NF = torch.randn(examples, 3, generator=generator)
    labels_N = torch.randint(3, (examples,), generator=generator)
    first_N = inputs_NF[:, 0] > 0 if kind == "half" else inputs_NF[:, 0].abs() > 0.67
    right_NC = 3.0 * torch.nn.functional.one_hot(labels_N, 3)
    wrong_NC = 3.0 * torch.nn.functional.one_hot((labels_N + 1) % 3, 3)
    logits_MNC = torch.stack([torch.where(m[:, None], right_NC, wrong_NC) for m in (first_N, ~first_N)])
    return trainable(Predictions(logits_MNC=logits_MNC, kind="classification", labels=labels_N, features_NF=inputs_NF))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0, 4])
def test_before_training_it_is_the_average(kind: TaskKind, hidden: int) -> None:
    predictions = make_predictions(kind)
    features_NF = log_features(predictions.logits_MNC, kind)
    network = GateNetwork(features_NF.shape[1], 3, hidden=hidden, penalty=0.1)
    found = PackedGate(network.double(), kind, (3, 4))(PackedGate.pack(predictions.logits_MNC, features_NF).T)
    torch.testing.assert_close(found, Average().combine(predictions)(predictions.logits_MNC))


@pytest.mark.parametrize("kind", KINDS)
def test_constant_gates_are_a_weighted_average(kind: TaskKind) -> None:
    predictions = make_predictions(kind)
    weights_M = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = gated(predictions.logits_MNC, weights_M.log().expand(40, 3), kind)
    expected = fuse(predictions.logits_MNC, method="weighted_average", weights=weights_M, kind=kind)
    torch.testing.assert_close(found, expected.logits_NC)


def test_the_penalty_is_on_the_weights_that_are_used() -> None:
    network = GateNetwork(2, 3, hidden=4, penalty=0.7)
    torch.nn.init.ones_(network.last.weight)
    identity = torch.eye(2)
    assert network.hidden is not None
    used_HF = (network.hidden(identity) - network.hidden(torch.zeros(2, 2))).T
    last_MH = (network.last(torch.eye(4)) - network.last(torch.zeros(4, 4))).T
    expected = 0.7 * (used_HF.square().sum() + last_MH.square().sum())
    torch.testing.assert_close(network.penalty(), expected)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_a_penalty_without_end_gives_the_weights_of_lowest_nll(kind: TaskKind) -> None:
    predictions = trainable(make_predictions(kind, examples=200))
    gate = Gating(penalty=1e8).combine(predictions)
    optimal = WeightedAverage().combine(predictions)
    assert optimal.weights is not None and gate.weights is not None
    assert float(optimal.weights.max() - optimal.weights.min()) > 0.3
    z_MNC = predictions.logits_MNC
    assert abs(nll(gate(z_MNC), predictions) - nll(optimal(z_MNC), predictions)) < 1e-4
    assert nll(gate(z_MNC), predictions) < nll(Average().combine(predictions)(z_MNC), predictions) - 0.01
    torch.testing.assert_close(gate.weights, optimal.weights, rtol=0, atol=0.02)


def test_a_penalty_without_end_gives_the_weights_of_lowest_squared_error() -> None:
    predictions = trainable(make_predictions("regression", examples=200, outputs=1))
    gate = Gating(penalty=1e8).combine(predictions)
    optimal = WeightedAverage(weights=LeastSquaresOptimal()).combine(predictions)
    torch.testing.assert_close(gate.weights, optimal.weights, rtol=0, atol=1e-3)
    with torch.no_grad():
        errors = [float((each(predictions.logits_MNC) - predictions.truth).square().mean()) for each in (gate, optimal)]
    assert errors[1] <= errors[0] + 1e-9 < errors[1] + 1e-4


def test_the_common_properties(fitted: tuple[Predictions, Gate]) -> None:
    predictions, gate = fitted
    with torch.no_grad():
        fused_NC = gate(predictions.logits_MNC)
        assert fused_NC.shape == (80, 4) and fused_NC.dtype == torch.float64 and fused_NC.isfinite().all()
        if predictions.kind == "classification":
            properties.close(fused_NC.exp().sum(1), torch.ones(80))
        parts = [gate(part) for part in predictions.logits_MNC.split([1, 7, 72], dim=1)]
        properties.close(torch.cat(parts), fused_NC)
        single_NC = gate(predictions.logits_MNC.float())
        assert single_NC.dtype == torch.float32
        properties.close(single_NC, fused_NC, tolerance=1e-4)
        certain = gate(torch.cat([1e4 * predictions.logits_MNC[:1], predictions.logits_MNC[1:]]))
        assert certain.isfinite().all()
        same = predictions.logits_MNC[:1].expand(3, -1, -1)
        one_NC = predictions.logits_MNC[0]
        properties.close(gate(same), one_NC.log_softmax(1) if predictions.kind == "classification" else one_NC)
    assert gate.unused == frozenset()
    assert gate.weights is not None
    assert gate.weights.dtype == torch.float64 and float(gate.weights.sum()) == pytest.approx(1, abs=1e-12)


def test_inputs_are_untouched_and_two_fits_are_equal_bit_by_bit() -> None:
    predictions = trainable(make_predictions("classification"))
    logits_MNC, state = predictions.logits_MNC.clone(), torch.get_rng_state()
    first, second = (Gating(hidden=3).combine(properties.fresh(predictions)) for _ in range(2))
    assert torch.equal(predictions.logits_MNC, logits_MNC)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


def test_the_order_of_members_is_irrelevant() -> None:
    predictions = trainable(make_predictions("classification", examples=80))
    order = torch.tensor([2, 0, 1])
    permuted = replace(predictions, logits_MNC=predictions.logits_MNC[order])
    first, second = Gating().combine(predictions), Gating().combine(permuted)
    properties.close(second(permuted.logits_MNC), first(predictions.logits_MNC), tolerance=1e-3)


@pytest.mark.parametrize(("kind", "hidden"), [("half", 0), ("size", 8)])
def test_it_learns_where_each_member_is_right(kind: str, hidden: int) -> None:
    predictions = experts(kind)
    gate = Gating(features="input", hidden=hidden, penalty=1e-4).combine(predictions)
    constant = WeightedAverage().combine(predictions)
    found = nll(gate(predictions.logits_MNC, predictions.features_NF), predictions)
    assert nll(constant(predictions.logits_MNC), predictions) > 0.7
    assert found < 0.35
    # each example has its expert, and both are in use
    assert gate.diagnostics["fusion/gate_entropy"] < 0.3
    assert gate.diagnostics["fusion/mean_gate_entropy"] == pytest.approx(0.693, abs=0.02)


def test_a_linear_gate_cannot_know_what_a_hidden_layer_can() -> None:
    predictions = experts("size")
    gate = Gating(features="input", penalty=1e-4).combine(predictions)
    assert nll(gate(predictions.logits_MNC, predictions.features_NF), predictions) > 0.6


def test_scales_of_inputs_do_not_matter() -> None:
    predictions = experts("half")
    assert predictions.features_NF is not None
    scales = torch.tensor([1e3, 1e-3, 1.0])
    constant = torch.full((400, 1), 7.0)
    scaled_NF = torch.cat([predictions.features_NF * scales + 5, constant], dim=1)
    scaled = replace(predictions, features_NF=scaled_NF)
    first = Gating(features="input").combine(predictions)(predictions.logits_MNC, predictions.features_NF)
    second = Gating(features="input").combine(scaled)(predictions.logits_MNC, scaled_NF)
    properties.close(second, first, tolerance=2e-3)


def test_one_expert_is_reported_as_collapse(fitted: tuple[Predictions, Gate]) -> None:
    _, gate = fitted
    entropy = gate.diagnostics["fusion/gate_entropy"]
    assert 0 < entropy < 1.0986 and gate.diagnostics["fusion/gate_collapsed"] == float(entropy < 0.05)
    predictions = make_predictions("classification")
    right = 4.0 * torch.nn.functional.one_hot(predictions.truth, 4).double()
    better = torch.stack([right, -right, torch.zeros_like(right)])
    alone = Gating().combine(trainable(replace(predictions, logits_MNC=better)))
    assert alone.diagnostics["fusion/gate_entropy"] < 0.05
    assert alone.diagnostics["fusion/mean_gate_entropy"] < 0.05
    assert alone.diagnostics["fusion/gate_collapsed"] == 1.0
    assert alone.weights is not None and alone.weights[0] > 0.99


def assert_network_agrees(fused: FusedModel, context: Context, gate_inputs: Tensor) -> None:
    """The network fuses the members' outputs by the gate at these features."""
    assert fused.network is not None
    assert fused.combiners is None
    ((name, combiner),) = fused.network.combiners.items()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        found = fused.network(context.development.validation.inputs)[name]
        expected = combiner(context.base_models.logits("validation")[name], gate_inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gates_that_read_the_input_run_in_the_network() -> None:
    context = replace(given_context([DIGIT]), fit=Fit(CPU), cross_fit=2)
    fused = TemperatureScaled(inner=Gating(features="input"), accept="always").apply(context)
    assert_network_agrees(fused, context, context.development.validation.inputs)
    assert fused.fit["digit"]["nll"] < fused.validation["digit"]["nll"]
    assert fused.members == (0, 1, 2, 3)


def test_gates_that_read_the_backbone_of_member_0(tmp_path: Path) -> None:
    setting = make_setting(make_toy(SIGN))
    context = replace(make_context(setting, Seeds(count=2), tmp_path), cross_fit=2)
    fused = Gating(features="backbone").apply(context)
    network = context.base_models[0].network()
    with torch.no_grad():
        features_NF = network.backbone(context.development.validation.inputs)  # type: ignore[operator]
    assert features_NF.shape == (24, 8)
    assert_network_agrees(fused, context, features_NF)


def test_gates_on_outputs_need_no_forward_pass() -> None:
    context = replace(given_context([DIGIT]), fit=Fit(CPU), cross_fit=2)
    fused = Gating().apply(context)
    assert fused.network is not None and fused.combiners is not None
    with torch.no_grad():
        stored = fused.combiners["digit"](context.base_models.logits("validation")["digit"])
        found = fused.network(context.development.validation.inputs)["digit"]
    torch.testing.assert_close(found, stored, rtol=1e-5, atol=1e-5)
    assert fused.weights is not None and sum(fused.weights["digit"]) == pytest.approx(1)


def test_networks_without_a_backbone_are_refused() -> None:
    development = make_development([DIGIT])
    custom = describe([DIGIT], 2)
    custom = replace(custom, members=tuple(replace(member, architecture="custom") for member in custom.members))
    with pytest.raises(IncompatibleStrategyError, match=r"model=custom .* Did you mean strategy\.features=outputs\?"):
        Gating(features="backbone").check(development, custom)
    Gating(features="input").check(development, custom)
    with pytest.raises(IncompatibleStrategyError, match="needs base models with a backbone.* Found Heads"):
        Gating(features="backbone").apply(given_context([DIGIT]))


def test_examples_with_unknown_labels_are_left_out() -> None:
    predictions = trainable(make_predictions("classification"))
    labels_N = predictions.truth.clone()
    labels_N[20:] = -1
    some = Gating().combine(properties.fresh(replace(predictions, labels=labels_N)))
    half = Gating().combine(properties.fresh(predictions).at(torch.arange(20), make_generator("properties")))
    assert all(torch.equal(one, two) for one, two in zip(some.parameters(), half.parameters(), strict=True))
    with pytest.raises(EmptyTaskError, match="at least one labelled example"):
        Gating().combine(replace(predictions, labels=torch.full((40,), -1)))


def test_outside_a_run_there_is_no_trainer() -> None:
    predictions = make_predictions("classification")
    with pytest.raises(NeedsContextError, match="Lightning"):
        fuse(predictions.logits_MNC, method="gating", labels=predictions.truth)


def test_missing_features_and_other_members_are_refused(fitted: tuple[Predictions, Gate]) -> None:
    predictions, gate = fitted
    with pytest.raises(PredictionError, match=r"`features = input` reads the examples' input too\. Found none\."):
        Gating(features="input").combine(predictions)
    with pytest.raises(PredictionError, match="fuses 3 members. Found outputs of 2"):
        gate(predictions.logits_MNC[:2])
    reading = Gating(features="input").combine(experts("half", examples=10))
    with pytest.raises(PredictionError, match=r"reads features of the examples \(input\) too"):
        reading(torch.zeros(2, 5, 3))


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("features", "pixels", "outputs, input or backbone"),
        ("hidden", -1, "an integer >= 0"),
        ("hidden", 2.5, "an integer >= 0"),
        ("penalty", -0.1, ">= 0 and finite"),
        ("penalty", float("inf"), ">= 0 and finite"),
    ],
)
def test_bad_fields_are_refused(field: str, value: object, rule: str) -> None:
    with pytest.raises(HyperparameterError, match=re.escape(f"`{field}` should be {rule}. Found `{field} = {value}`.")):
        Gating(**{field: value})  # type: ignore[arg-type]
