from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from tests.alignment.networks import OWN, SHIPPED, images, seeded
from transfuse.alignment import specify, squared_distance, transport_units
from transfuse.alignment.verification import deviation
from transfuse.models import build_vit
from transfuse.types import IncompatibleStrategyError, Task

ALL = {**SHIPPED, **OWN}
GOLDEN = Path(__file__).parents[1] / "golden" / "weight_fusion"
SOFT = sorted(ALL.keys() - {"vit", "grouped", "class_token", "unbind", "chunk", "rotary"})


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(name: str, seed: int):
    make, inputs = ALL[name]
    network = seeded(make)
    specification = specify(network, inputs, stream())
    other = copy.deepcopy(network)
    other.load_state_dict(specification.apply(network.state_dict(), specification.random(stream(seed))))
    return specification, network, other, inputs


@pytest.mark.parametrize("by_activations", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_planted_permutation_is_recovered(name: str, by_activations: bool) -> None:
    specification, network, other, inputs = planted(name, 1)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    assert squared_distance(network.state_dict(), before) > 0
    found = transport_units(specification, network, other, inputs, by_activations=by_activations)
    for key, value in network.state_dict().items():
        assert torch.equal(found[key], value), key
        assert torch.equal(other.state_dict()[key], before[key]), key


@pytest.mark.parametrize("by_activations", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_exact_transport_keeps_the_function_and_brings_networks_nearer(name: str, by_activations: bool) -> None:
    make, inputs = ALL[name]
    network, other = seeded(make), seeded(make, seed=1)
    specification = specify(network, inputs, stream())
    found = transport_units(specification, network, other, inputs, by_activations=by_activations)
    moved = copy.deepcopy(other)
    moved.load_state_dict(found)
    assert deviation(other, specification, specification.identity(), inputs) == 0
    with torch.no_grad():
        for one, same in zip(_outputs(other(inputs)), _outputs(moved(inputs)), strict=True):
            torch.testing.assert_close(one, same, rtol=1e-4, atol=1e-4)
    if not by_activations:
        assert squared_distance(network.state_dict(), found) < squared_distance(
            network.state_dict(), other.state_dict()
        )


def _outputs(value: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value.values())


def mlp(widths: list[int], *, bias: bool = True, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def test_golden_hidden_layers() -> None:
    content = np.load(GOLDEN / "otfusion_exact_wts.npz")
    networks = []
    for model in ("m1", "m0"):  # model 0 is moved onto model 1
        network = mlp([6, 10, 8, 4], bias=False)
        network.load_state_dict(
            {f"{2 * layer}.weight": torch.from_numpy(content[f"in_{model}_{layer}"]) for layer in range(3)}
        )
        networks.append(network)
    reference, other = networks
    inputs = torch.randn(4, 6, generator=stream())
    found = transport_units(specify(reference, inputs, stream()), reference, other, inputs)
    for layer in range(2):
        mean = (found[f"{2 * layer}.weight"] + reference.state_dict()[f"{2 * layer}.weight"]) / 2
        np.testing.assert_allclose(mean.numpy(), content[f"out_{layer}"], atol=1e-6)
    # classes stay: the head's rows are the other's own, with its inputs moved
    head = other.state_dict()["4.weight"]
    assert torch.equal(found["4.weight"].sort(dim=1).values, head.sort(dim=1).values)
    assert not np.allclose((found["4.weight"] + reference.state_dict()["4.weight"]).numpy() / 2, content["out_2"])


def test_soft_transport_of_an_mlp_by_hand() -> None:
    reference, other = mlp([5, 7, 6, 3]), mlp([5, 7, 6, 3], seed=1)
    inputs = torch.randn(4, 5, generator=stream())
    specification = specify(reference, inputs, stream())
    found = transport_units(specification, reference, other, inputs, regularization=0.1)
    a, b = ({key: value.double().numpy() for key, value in net.state_dict().items()} for net in (reference, other))
    previous = np.eye(5)
    for layer in (0, 2):
        # W' T_(l-1)^T, then T_l from the distances of rows with their bias
        weight, bias = b[f"{layer}.weight"] @ previous.T, b[f"{layer}.bias"]
        cost = cdist(np.c_[a[f"{layer}.weight"], a[f"{layer}.bias"]], np.c_[weight, bias])
        previous = _scaled(cost / cost.mean(), 0.1)
        np.testing.assert_allclose(found[f"{layer}.weight"].numpy(), previous @ weight, atol=1e-6)
        np.testing.assert_allclose(found[f"{layer}.bias"].numpy(), previous @ bias, atol=1e-6)
    np.testing.assert_allclose(found["4.weight"].numpy(), b["4.weight"] @ previous.T, atol=1e-6)
    assert torch.equal(found["4.bias"], other.state_dict()["4.bias"])


def _scaled(cost: np.ndarray, regularization: float) -> np.ndarray:
    kernel = np.exp(-cost / regularization)
    row, column = np.ones(len(cost)), np.ones(len(cost))
    for _ in range(3000):
        row = 1 / (kernel @ column)
        column = 1 / (kernel.T @ row)
    return row[:, None] * kernel * column


def test_activation_costs_by_hand() -> None:
    reference, other = mlp([5, 7, 3]), mlp([5, 7, 3], seed=1)
    inputs = torch.randn(300, 5, generator=stream())  # more than one batch
    found = transport_units(specify(reference, inputs[:4], stream()), reference, other, inputs, by_activations=True)
    with torch.no_grad():
        before, after = (net[0](inputs).double().numpy() for net in (reference, other))
    # before and after the activation function
    squares = cdist(before.T, after.T, "sqeuclidean") + cdist(before.clip(0).T, after.clip(0).T, "sqeuclidean")
    _, order = linear_sum_assignment(np.sqrt(squares / 300))
    assert torch.equal(found["0.weight"], other.state_dict()["0.weight"][order])
    assert torch.equal(found["2.weight"], other.state_dict()["2.weight"][:, order])


@pytest.mark.parametrize("by_activations", [False, True])
@pytest.mark.parametrize("name", SOFT)
def test_soft_transport_lies_between_the_exact_and_the_uniform(name: str, by_activations: bool) -> None:
    make, inputs = ALL[name]
    network, other = seeded(make), seeded(make, seed=1)
    specification = specify(network, inputs, stream())

    def moved(regularization: float) -> dict[str, Tensor]:
        return transport_units(
            specification, network, other, inputs, by_activations=by_activations, regularization=regularization
        )

    uniform = moved(1e9)
    for view in specification.views:
        part = view.of(uniform[view.key])
        for dim, symbol in enumerate(view.symbols):
            if symbol is not None:  # all units are their mean
                torch.testing.assert_close(part, part.mean(dim, keepdim=True).expand_as(part), rtol=1e-5, atol=1e-6)
    half = moved(0.3)
    for key, value in half.items():
        assert value.dtype == other.state_dict()[key].dtype and bool(torch.isfinite(value).all())
        if "running_var" in key:
            assert bool((value > 0).all())
    copy.deepcopy(other).load_state_dict(half)


@pytest.mark.parametrize("name", SOFT)
def test_little_regularization_is_nearly_exact(name: str) -> None:
    specification, network, other, inputs = planted(name, 2)
    start = squared_distance(network.state_dict(), other.state_dict())
    far, near = (
        squared_distance(
            network.state_dict(), transport_units(specification, network, other, inputs, regularization=regularization)
        )
        for regularization in (0.3, 0.01)
    )
    assert near < 1e-9 * start and near <= far


def test_units_without_differences_stay() -> None:
    network, other = mlp([3, 4, 2]), mlp([3, 4, 2])
    with torch.no_grad():
        for each in (network, other):
            each[0].weight.fill_(1.0)
            each[0].bias.fill_(1.0)
    inputs = torch.ones(2, 3)
    specification = specify(network, inputs, stream())
    found = transport_units(specification, network, other, inputs, regularization=0.1)
    assert all(torch.equal(found[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize("name", sorted(ALL.keys() - set(SOFT)))
def test_heads_and_groups_are_not_mixed(name: str) -> None:
    make, inputs = ALL[name]
    network = seeded(make)
    specification = specify(network, inputs, stream())
    with pytest.raises(IncompatibleStrategyError, match=r"Found units within blocks .*Did you mean regularization=0\?"):
        transport_units(specification, network, network, inputs, regularization=0.1)


def test_a_single_head_is_not_mixed_either() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    network = build_vit(input_shape=(1, 8, 8), tasks=(task,), width=8, heads=1)
    specification = specify(network, images(), stream())
    with pytest.raises(
        IncompatibleStrategyError,
        match=r"Found activations multiplied by each other \(scaled_dot_product_attention\)",
    ):
        transport_units(specification, network, network, images(), regularization=0.1)
