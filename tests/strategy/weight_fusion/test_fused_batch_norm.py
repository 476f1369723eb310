from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from transfuse.models.batch_norm import full_batches, has_batch_norm, reestimate
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import UniformSoup

NORM = "backbone.stages.0.1"


def measured_on(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Running statistics of a copy of the network, measured anew."""
    measured = deepcopy(network)
    reestimate(measured, measured.modules(), batches)
    return {key: value for key, value in measured.state_dict().items() if "running_" in key}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_golden_reestimation(golden: Path) -> None:
    values = load_file(golden / "batch_norm_reestimate.safetensors")
    found = measured_on(nn.BatchNorm1d(5), [values[f"batch_{index}"] for index in range(4)])
    assert set(found) == {"running_mean", "running_var"}
    for key, value in found.items():
        torch.testing.assert_close(value, values[key], rtol=1e-5, atol=1e-6)


def deep_network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.9),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.BatchNorm1d(5),
        )


def test_reestimation_equals_an_independent_loop_and_torch(digest: Callable[[Mapping[str, Tensor]], str]) -> None:
    network = deep_network().eval()
    inputs = torch.randn(32, 2, 4, 4, generator=generator())
    before = digest(network.state_dict())
    batches = inputs.split(8)
    found = measured_on(network, batches)
    assert digest(network.state_dict()) == before and network[1].momentum == 0.1
    assert not any(module.training for module in network.modules())
    # the first layer by hand: mean over batches of the batch mean and of the unbiased batch variance
    with torch.no_grad():
        hidden = [network[0](batch).transpose(0, 1).flatten(1).double() for batch in batches]
    torch.testing.assert_close(found["1.running_mean"].double(), torch.stack([h.mean(1) for h in hidden]).mean(0))
    torch.testing.assert_close(found["1.running_var"].double(), torch.stack([h.var(1) for h in hidden]).mean(0))
    # all layers by torch, whose update also switches dropout on
    network[3].p = 0.0
    update_bn(batches, network)
    for key, value in found.items():
        torch.testing.assert_close(value, network.state_dict()[key])


def test_networks_without_running_statistics_have_nothing_to_measure() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.LayerNorm(2))
    assert not has_batch_norm(network) and measured_on(network, [torch.zeros(4, 2)]) == {}
    assert has_batch_norm(deep_network())


def scaled_pair(toys, data):
    """A network, and the same function with the layer before BatchNorm ten times as large."""
    network = toys.train(toys.network(0, batch_norm=True), data.train, seed=0, steps=60)
    larger = toys.network(0, batch_norm=True)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["backbone.stages.0.0.weight"] *= 10
    state["backbone.stages.0.0.bias"] *= 10
    state[f"{NORM}.running_mean"] *= 10
    state[f"{NORM}.running_var"] *= 100
    larger.load_state_dict(state)
    return network, larger.eval()


def accuracy(network: nn.Module, data) -> float:
    predicted = predict(network, data.validation.inputs)["y"].argmax(1)
    return float((predicted == data.validation.targets["y"]).double().mean())


def test_reestimation_repairs_what_other_statistics_break(toys) -> None:
    data = toys.development()
    network, larger = scaled_pair(toys, data)
    context = toys.context([network, larger], data)
    measured = UniformSoup(batch_norm="reestimate").apply(context)
    # statistics scale with the weights: the fused network is the member with statistics measured anew
    batches = list(full_batches(data.train.inputs, 16, context.generator("weight_fusion/batch_norm")))
    assert [len(batch) for batch in batches] == [16] * 4
    network.load_state_dict(network.state_dict() | measured_on(network, batches))
    expected = predict(network, data.validation.inputs)["y"]
    torch.testing.assert_close(predict(measured.network, data.validation.inputs)["y"], expected, rtol=1e-3, atol=1e-3)
    assert measured.diagnostics["batch_norm"] == "reestimate"
    assert measured.network.state_dict()[f"{NORM}.num_batches_tracked"] == 60


def test_keep_and_average_take_the_members_statistics(toys) -> None:
    data = toys.development()
    network, larger = scaled_pair(toys, data)
    context = toys.context([network, larger], data)
    mean, variance = network.state_dict()[f"{NORM}.running_mean"], network.state_dict()[f"{NORM}.running_var"]
    kept = UniformSoup(batch_norm="keep").apply(context)
    assert torch.equal(kept.network.state_dict()[f"{NORM}.running_mean"], mean)
    assert torch.equal(kept.network.state_dict()[f"{NORM}.running_var"], variance)
    averaged = UniformSoup(batch_norm="average").apply(context)
    torch.testing.assert_close(averaged.network.state_dict()[f"{NORM}.running_mean"], 5.5 * mean)
    expected = (variance + 100 * variance) / 2 + (4.5 * mean) ** 2
    torch.testing.assert_close(averaged.network.state_dict()[f"{NORM}.running_var"], expected)
    measured = UniformSoup().apply(context)
    assert measured.validation["y"]["nll"] < kept.validation["y"]["nll"]
    assert (kept.diagnostics["batch_norm"], averaged.diagnostics["batch_norm"]) == ("keep", "average")
