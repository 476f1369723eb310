from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.strategy.weight_fusion.renormalization import (
    HiddenLayers,
    Moments,
    Target,
    averages,
    correction,
    hidden_layers,
    renormalized,
    unit_moments,
)
from transfuse.types import Task

TASK = Task(name="y", kind="classification", outputs=3)
IMAGE, VECTOR = (1, 8, 8), (5,)
BUILDERS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "mlp": (VECTOR, lambda: build_mlp(input_shape=VECTOR, tasks=(TASK,), widths=[12] * 4)),
    "cnn": (IMAGE, lambda: build_cnn(input_shape=IMAGE, tasks=(TASK,), channels=[4, 6], features=7)),
    "vit": (IMAGE, lambda: build_vit(input_shape=IMAGE, tasks=(TASK,), width=8, heads=2, patch=4)),
    "cnn_batch_norm": (IMAGE, lambda: build_cnn(input_shape=IMAGE, tasks=(TASK,), channels=[4], batch_norm=True)),
    "resnet": (IMAGE, lambda: build_resnet(input_shape=IMAGE, tasks=(TASK,), channels=[4, 6], blocks=[1, 1])),
}


def never(network: nn.Module, layer: nn.Module) -> None:
    raise AssertionError("no BatchNorm comes after what was repaired")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().eval()


def mean_of(first: nn.Module, second: nn.Module, build: Callable[[], nn.Module]) -> nn.Module:
    network, states = made(build, 0), (first.state_dict(), second.state_dict())
    network.load_state_dict(
        {key: (value + states[1][key]) / 2 if value.is_floating_point() else value for key, value in states[0].items()}
    )
    return network


def rows(network: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """(R, U) what a layer gives, all inputs at once, in float64."""
    kept: list[Tensor] = []
    layer = network.get_submodule(name)
    handle = layer.register_forward_hook(lambda module, given, output: kept.append(output.detach()))
    with torch.no_grad():
        network(inputs)
    handle.remove()
    (output,) = kept
    flat = output.flatten(0, -2) if isinstance(layer, nn.Linear) else output.transpose(0, 1).flatten(1).T
    return flat.double()


@pytest.mark.parametrize("model", BUILDERS)
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])
def test_every_repaired_unit_has_the_mean_and_the_deviation_of_the_endpoints(
    model: str, shares: tuple[float, float]
) -> None:
    shape, build = BUILDERS[model]
    first, second = made(build, 1), made(build, 2)
    network, inputs = mean_of(first, second, build), drawn(300, *shape)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    layers = hidden_layers(network, inputs[:4], network.state_dict().keys())
    moments = [unit_moments(each, layers.repaired, inputs, batch_size=77) for each in (first, second)]
    repaired = renormalized(network, layers.order, averages(moments, shares), inputs, never)
    for name in layers.repaired:
        found, one, other = (rows(each, name, inputs) for each in (repaired, first, second))
        mean = shares[0] * one.mean(0) + shares[1] * other.mean(0)
        deviation = shares[0] * one.std(0, correction=0) + shares[1] * other.std(0, correction=0)
        torch.testing.assert_close(found.mean(0), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.std(0, correction=0), deviation, rtol=1e-5, atol=1e-5)
        plain = rows(network, name, inputs)
        assert not torch.allclose(plain.std(0, correction=0), deviation, rtol=1e-2)
    after = repaired.state_dict()
    touched = {f"{name}.{part}" for name in layers.repaired for part in ("weight", "bias")}
    assert after.keys() == before.keys()
    assert {key for key in before if not torch.equal(after[key], before[key])} == touched
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_is_hidden_in_the_shipped_models() -> None:
    def found(model: str) -> HiddenLayers:
        shape, build = BUILDERS[model]
        network = made(build, 0)
        return hidden_layers(network, torch.zeros(4, *shape), network.state_dict().keys())

    head = {"heads.y.linear": "head"}
    assert found("mlp").repaired == tuple(f"backbone.stages.{stage}.0" for stage in range(4))
    assert found("mlp").left == head
    assert found("cnn").repaired == ("backbone.stages.0.0", "backbone.stages.1.0", "backbone.neck.1")
    block = [f"attention.{name}" for name in ("query", "key", "value", "out")] + ["mlp.0", "mlp.2"]
    assert found("vit").repaired == (
        "backbone.stem.projection",
        *(f"backbone.stages.{stage}.{name}" for stage in range(2) for name in block),
    )
    assert found("vit").left == head
    assert found("cnn_batch_norm").repaired == ("backbone.neck.1",)
    assert found("cnn_batch_norm").left == {"backbone.stages.0.0": "followed by BatchNorm", **head}
    convolutions = [
        name for name, module in made(BUILDERS["resnet"][1], 0).named_modules() if isinstance(module, nn.Conv2d)
    ]
    assert found("resnet").repaired == () and len(convolutions) == 6
    assert found("resnet").left == dict.fromkeys(convolutions, "followed by BatchNorm") | head


class Shared(nn.Module):
    """A layer that runs twice, one that shares its weight, one that runs as a function only."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.once, self.never = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.once(self.twice(self.twice(inputs).relu()).relu())
        result: Tensor = self.second(self.first(hidden)) + nn.functional.linear(hidden, self.never.weight)
        return result


def test_layers_of_which_one_weight_makes_several_outputs_are_left() -> None:
    network = Shared().eval()
    found = hidden_layers(network, torch.zeros(2, 3), set(network.state_dict()) | {"other.weight"})
    several = "makes several outputs"
    assert found.repaired == found.order == ("once",)
    assert found.left == {
        "twice": several,
        "first": several,
        "second": several,
        "never": "does not run as a layer",
    }
    assert hidden_layers(network, torch.zeros(2, 3), {"twice.weight"}).left["once"] == "not fused"
    assert all(not module._forward_hooks for module in network.modules())


def test_moments_are_those_of_all_rows_whatever_the_batches() -> None:
    values = drawn(50, 4).double() * 3 + 100
    joined = Moments.of(values[:1]).joined(Moments.of(values[1:20])).joined(Moments.of(values[20:]))
    assert joined.rows == 50
    torch.testing.assert_close(joined.mean_U, values.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(joined.variance_U, values.var(0, correction=0), rtol=1e-12, atol=0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())
    images = drawn(10, 2, 5, 5)
    expected = network[0](images).detach().double()
    for batch_size in (1, 3, 10):
        moments = unit_moments(network, ["0"], images, batch_size=batch_size)["0"]
        assert moments.rows == 90
        torch.testing.assert_close(moments.mean_U, expected.mean((0, 2, 3)), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(moments.deviation_U, expected.std((0, 2, 3), correction=0), rtol=1e-5, atol=1e-7)


def test_a_constant_unit_is_shifted_and_stays_finite() -> None:
    found = Moments(
        rows=9, mean_U=torch.tensor([2.0, -100.0, 0.0, 1.0]), variance_U=torch.tensor([0.0, 1e-10, 0.0, 4.0])
    )
    target = Target(mean_U=torch.tensor([5.0, 1.0, 0.0, 3.0]), deviation_U=torch.tensor([3.0, 2.0, 0.0, 0.0]))
    scale, shift = correction(found, target)
    assert scale.tolist() == [1.0, 1.0, 1.0, 0.0]  # the last one is constant in the models, and becomes so
    assert shift.tolist() == [3.0, 101.0, 0.0, 3.0]


def test_a_dead_unit_of_a_network() -> None:
    build = BUILDERS["mlp"][1]
    first, second = made(build, 1), made(build, 2)
    network, inputs = mean_of(first, second, build), drawn(100, *VECTOR)
    with torch.no_grad():
        network.get_submodule("backbone.stages.1.0").weight[3] = 0.0
    names = [f"backbone.stages.{stage}.0" for stage in range(4)]
    targets = averages([unit_moments(each, names, inputs) for each in (first, second)], (0.5, 0.5))
    repaired = renormalized(network, names, targets, inputs, never)
    assert all(bool(value.isfinite().all()) for value in repaired.state_dict().values())
    moments = unit_moments(repaired, names, inputs)
    torch.testing.assert_close(moments[names[1]].mean_U, targets[names[1]].mean_U, rtol=1e-5, atol=1e-5)
    assert float(moments[names[1]].deviation_U[3]) < 1e-6 < float(targets[names[1]].deviation_U[3])
    others = torch.arange(12) != 3
    expected = targets[names[1]].deviation_U[others]
    torch.testing.assert_close(moments[names[1]].deviation_U[others], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moments[names[3]].deviation_U, targets[names[3]].deviation_U, rtol=1e-5, atol=1e-5)


def test_a_layer_without_a_bias_is_rescaled_only() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh(), nn.Linear(6, 4))

    first, second = made(build, 1), made(build, 2)
    network, inputs = mean_of(first, second, build), drawn(200, 5) + 1
    targets = averages([unit_moments(each, ["0", "2"], inputs) for each in (first, second)], (0.5, 0.5))
    repaired = renormalized(network, ["0", "2"], targets, inputs, never)
    assert repaired.get_submodule("0").bias is None
    found = unit_moments(repaired, ["0", "2"], inputs)
    before = unit_moments(network, ["0"], inputs)["0"]
    for name in ("0", "2"):
        torch.testing.assert_close(found[name].deviation_U, targets[name].deviation_U, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        found["0"].mean_U / found["0"].deviation_U, before.mean_U / before.deviation_U, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found["2"].mean_U, targets["2"].mean_U, rtol=1e-5, atol=1e-5)


def test_batch_norm_behind_a_repaired_layer_is_measured_anew() -> None:
    def build() -> nn.Module:
        layers = [nn.Linear(5, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 4)]
        return nn.Sequential(*layers)

    first, second = made(build, 1), made(build, 2)
    network, inputs = mean_of(first, second, build), drawn(200, 5)
    layers = hidden_layers(network, inputs[:4], network.state_dict().keys())
    assert layers.order == ("0", "2", "3") and layers.repaired == ("0", "3")
    targets = averages([unit_moments(each, layers.repaired, inputs) for each in (first, second)], (0.5, 0.5))

    def renew(network: nn.Module, layer: nn.Module) -> None:
        hidden = network[:2](inputs)
        layer.running_mean.copy_(hidden.mean(0))

    repaired = renormalized(network, layers.order, targets, inputs, renew)
    torch.testing.assert_close(repaired[2].running_mean, repaired[:2](inputs).mean(0))
    assert float(repaired[2].running_mean.abs().min()) > 0
    found = unit_moments(repaired, layers.repaired, inputs)  # the last layer was measured behind the new statistics
    for name in layers.repaired:
        torch.testing.assert_close(found[name].mean_U, targets[name].mean_U, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[name].deviation_U, targets[name].deviation_U, rtol=1e-5, atol=1e-5)


def test_equal_endpoints_change_no_bit() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 4))

    network, inputs = made(build, 1), drawn(200, 5)
    moments = unit_moments(network, ["0", "3"], inputs)
    same = renormalized(network, ["0", "2", "3"], averages([moments] * 2, (0.5, 0.5)), inputs, never)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in same.state_dict().items())
