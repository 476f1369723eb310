from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.strategy.weight_fusion.task_vector_inputs import State, assert_golden, networks
from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask
from transfuse.models import build_cnn
from transfuse.strategy.weight_fusion import RegMean, SingularGramError, merge
from transfuse.strategy.weight_fusion.grams import input_grams
from transfuse.strategy.weight_fusion.regmean import regression_mean
from transfuse.types import HyperparameterError, NeedsContextError, StateDictMismatch, Task


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("tag", "atol"), [("f64", 1e-6), ("f32", 2e-3)])
def test_golden_of_given_grams(golden: Path, tag: str, atol: float) -> None:
    models, _ = networks(golden, tag)
    expected = load_file(golden / f"regmean_given_grams_nd0.9_{tag}.safetensors")
    grams: list[State] = [{} for _ in models]
    for key in [key for key in expected if key.startswith("gram/")]:
        _, task, layer = key.split("/")
        grams[int(task.removeprefix("task")) - 1][f"{layer}.weight"] = expected.pop(key)
    merged = merge(models, method="regmean", statistics=grams, ridge=0.0)
    assert merged.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=atol)


class GoldenNetwork(nn.Module):
    """The network that the golden values were made with."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.ln = nn.Linear(12, 16), nn.LayerNorm(16)
        self.fc2, self.head = nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.head(self.fc2(self.ln(self.fc1(inputs)).relu()).relu())
        return result


def test_golden_of_data(golden: Path) -> None:
    models, _ = networks(golden, "f64")
    inputs = load_file(golden / "task_vectors_f64.safetensors")
    grams = []
    for index, model in enumerate(models):
        network = GoldenNetwork().double()
        network.load_state_dict(model)
        grams.append(input_grams(network, inputs[f"x/task{index + 1}"]))
    merged = merge(models, method="regmean", statistics=grams, ridge=0.0)
    assert_golden(merged, golden / "regmean_from_data_nd0.9_f64.safetensors", atol=1e-6)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_the_merged_layer_is_nearest_to_all_models_on_their_inputs(weights: tuple[float, ...] | None) -> None:
    inputs = [drawn(50, 6, seed=seed) for seed in range(3)]
    models = [{"w": drawn(4, 6, seed=seed + 3)} for seed in range(3)]
    grams = [{"w": rows.T @ rows / 50} for rows in inputs]
    merged = RegMean(reduce=1.0, ridge=0.0, weights=weights).merged(models, statistics=grams)["w"].requires_grad_()
    objective = sum(
        weight * (rows @ merged.T - rows @ model["w"].T).square().sum()
        for weight, rows, model in zip(weights or (1.0,) * 3, inputs, models, strict=True)
    )
    (gradient,) = torch.autograd.grad(objective, merged)
    assert float(gradient.norm()) < 1e-8


def test_a_merged_convolution_is_nearest_to_all_models_on_their_inputs() -> None:
    layers = [nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False).double() for _ in range(3)]
    inputs = [drawn(10, 4, 5, 5, seed=seed) for seed in range(3)]
    grams = [input_grams(layer, rows) for layer, rows in zip(layers, inputs, strict=True)]
    merged = RegMean(reduce=1.0, ridge=0.0).merged([layer.state_dict() for layer in layers], statistics=grams)
    common = nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False).double()
    common.load_state_dict(merged)
    objective = sum((common(rows) - layer(rows)).square().sum() for layer, rows in zip(layers, inputs, strict=True))
    (gradient,) = torch.autograd.grad(objective, common.weight)
    assert float(gradient.norm()) < 1e-8


def test_equal_grams_give_the_weighted_mean() -> None:
    models = [{"w": drawn(4, 6, seed=seed)} for seed in range(3)]
    rows = drawn(30, 6)
    for gram in (torch.eye(6), rows.T @ rows):
        merged = RegMean(reduce=1.0, ridge=0.0, weights=(1.0, 2.0, 1.0)).merged(models, statistics=[{"w": gram}] * 3)
        expected = (models[0]["w"] + 2 * models[1]["w"] + models[2]["w"]) / 4
        torch.testing.assert_close(merged["w"], expected, rtol=1e-12, atol=1e-12)


def test_reduce_0_weighs_each_input_by_its_own_second_moment() -> None:
    models = [{"w": drawn(4, 6, seed=seed)} for seed in range(2)]
    moments = [drawn(6, seed=seed + 5).square() for seed in range(2)]
    grams = [{"w": torch.diag(moment) + 0.1 * torch.ones(6, 6).double()} for moment in moments]
    merged = RegMean(reduce=0.0, ridge=0.0).merged(models, statistics=grams)["w"]
    shares = [moment + 0.1 for moment in moments]
    expected = (models[0]["w"] * shares[0] + models[1]["w"] * shares[1]) / (shares[0] + shares[1])
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-12)


def test_one_model_is_itself_and_inputs_that_never_come_have_the_mean() -> None:
    rows = drawn(30, 6)
    rows[:, 2] = 0.0
    gram = {"w": rows.T @ rows}
    models = [{"w": drawn(4, 6, seed=seed)} for seed in range(2)]
    torch.testing.assert_close(RegMean().merged(models[:1], statistics=[gram])["w"], models[0]["w"])
    merged = RegMean().merged(models, statistics=[gram, {"w": 3 * gram["w"]}])["w"]
    torch.testing.assert_close(merged[:, 2], (models[0]["w"] + models[1]["w"])[:, 2] / 2)
    silent = RegMean().merged(models, statistics=[{"w": torch.zeros(6, 6)}] * 2)["w"]
    torch.testing.assert_close(silent, (models[0]["w"] + models[1]["w"]) / 2)


def test_a_small_ridge_changes_little() -> None:
    rows = [drawn(50, 6, seed=seed) for seed in range(2)]
    weights, grams = [drawn(4, 6, seed=seed + 2) for seed in range(2)], [each.T @ each for each in rows]
    exact, ridged = (regression_mean(weights, grams, ridge=ridge) for ridge in (0.0, 1e-6))
    assert 0 < float((exact - ridged).abs().max()) < 1e-4
    far = regression_mean(weights, grams, ridge=1e9)
    torch.testing.assert_close(far, (weights[0] + weights[1]) / 2, rtol=1e-6, atol=1e-6)


def test_singular_grams_without_ridge_are_told() -> None:
    rows = drawn(3, 6)
    models, grams = [{"layer.weight": drawn(4, 6)}] * 2, [{"layer.weight": rows.T @ rows}] * 2
    with pytest.raises(SingularGramError, match=r"`layer.weight` has Gram .* \(condition number .*Did you mean ridge"):
        RegMean(ridge=0.0, reduce=1.0).merged(models, statistics=grams)


def test_bad_input_is_told() -> None:
    models = [{"w": drawn(4, 6)}] * 2
    with pytest.raises(NeedsContextError, match="regmean needs `statistics`"):
        merge(models, method="regmean")
    with pytest.raises(StateDictMismatch, match=r"`w` is \(4, 6\) and needs Gram matrices \(6, 6\).* Found \(4, 4\)"):
        RegMean().merged(models, statistics=[{"w": torch.eye(4)}] * 2)
    with pytest.raises(StateDictMismatch, match="different numbers of groups"):
        RegMean().merged(models, statistics=[{"w": torch.eye(6)}, {"w": torch.eye(6).expand(2, 6, 6)}])
    for fields, message in (
        ({"reduce": 1.1}, r"`reduce` should be in \[0, 1\]. Found `reduce = 1.1`."),
        ({"ridge": -1.0}, "`ridge` should be a number >= 0. Found `ridge = -1.0`."),
        ({"examples": 0}, "`examples` should be a whole number >= 1. Found `examples = 0`."),
        ({"weights": (1.0, -1.0)}, "`weights` should be >= 0, and one of them positive. Found"),
    ):
        with pytest.raises(HyperparameterError, match=message):
            RegMean(**fields).merged(models, statistics=[{"w": torch.eye(6)}] * 2)


def test_a_run_measures_each_member_on_its_own_activations(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = RegMean(ridge=0.0, examples=48).apply(context)
    assert fused.network is not None
    first, second = context.base_models
    inputs = context.development.train.inputs
    grams = [input_grams(member.network(), inputs) for member in (first, second)]
    merged = RegMean(ridge=0.0).merged(
        [_backbone(member.state) for member in (first, second)], statistics=[_backbone(gram) for gram in grams]
    )
    found = fused.network.state_dict()
    for key, value in merged.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    assert torch.equal(found["heads.value.linear.weight"], second.state["heads.value.linear.weight"])
    assert fused.validation.keys() == {"sign", "value"}


def test_a_convolutional_network_is_merged_through_its_patches() -> None:
    task = Task(name="y", kind="classification", outputs=3)
    members = [build_cnn(input_shape=(1, 8, 8), tasks=(task,), channels=[4], features=6).eval() for _ in range(2)]
    inputs = drawn(64, 1, 8, 8).float()
    grams = [input_grams(member, inputs) for member in members]
    assert {len(gram.shape) for gram in grams[0].values()} == {2, 3}
    merged = RegMean().merged([member.state_dict() for member in members], statistics=grams)
    weights = [member.state_dict()["heads.y.linear.weight"] for member in members]
    expected = regression_mean(weights, [gram["heads.y.linear.weight"] for gram in grams], reduce=0.9, ridge=1e-6)
    torch.testing.assert_close(merged["heads.y.linear.weight"], expected.float())
    assert not torch.allclose(expected.float(), (weights[0] + weights[1]) / 2, atol=1e-4)


def _backbone(state: State) -> State:
    return {key: value for key, value in state.items() if key.startswith("backbone.")}
