from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.alignment.networks import OWN, SHIPPED, images, seeded
from transfuse.alignment import Zipped, check_zip, incoming, specify, unit_correlations, zip_states, zip_units
from transfuse.models import build_vit
from transfuse.types import IncompatibleStrategyError, Task

ALL = {**SHIPPED, **OWN}
REFUSED = {
    "vit": "units within blocks",
    "grouped": "units within blocks",
    "class_token": "units within blocks",
    "unbind": "units within blocks",
    "chunk": "units within blocks",
    "rotary": "units within blocks",
    "tied": r"tied weights \(embedding.weight\)",
    "residual": r"layers from units to the same units \(block.weight\)",
}
ZIPPED = sorted(ALL.keys() - REFUSED.keys())


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zipped(networks: list[nn.Module], inputs: Tensor) -> list[Zipped]:
    specification = specify(networks[0], inputs[:4], stream())
    return [
        Zipped(
            index=index,
            specification=specification,
            made=incoming(network, specification, inputs[:4]),
            state=network.state_dict(),
        )
        for index, network in enumerate(networks)
    ]


def everything(models: list[Zipped]) -> dict[str, range]:
    return {key: range(len(models)) for key in models[0].state}


def mlp(widths: list[int], seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("num_models", [1, 2, 3])
def test_an_mlp_by_hand(num_models: int) -> None:
    models = zipped([mlp([5, 7, 6, 3], seed) for seed in range(num_models)], torch.randn(4, 5, generator=stream()))
    groups = {
        "0.weight@0": torch.randint(0, 7, (num_models, 7), generator=stream(1)),
        "2.weight@0": torch.randint(0, 6, (num_models, 6), generator=stream(2)),
    }
    for groups_KU in groups.values():
        groups_KU[0] = torch.arange(groups_KU.shape[1])  # none is empty
    found = zip_states(models, groups, everything(models))
    unmerges, merges = [], []
    for groups_KU in groups.values():
        unmerge = np.eye(groups_KU.shape[1])[groups_KU.numpy()]  # (K, U, groups)
        unmerges.append(unmerge)
        merges.append(unmerge.transpose(0, 2, 1) / unmerge.sum((0, 1))[:, None])
    expected = dict.fromkeys(found, 0.0)
    for index, model in enumerate(models):
        state = {key: value.double().numpy() for key, value in model.state.items()}
        # W = sum_i M_i W_i U_i, b = sum_i M_i b_i; classes and inputs are averaged
        expected["0.weight"] += merges[0][index] @ state["0.weight"]
        expected["0.bias"] += merges[0][index] @ state["0.bias"]
        expected["2.weight"] += merges[1][index] @ state["2.weight"] @ unmerges[0][index]
        expected["2.bias"] += merges[1][index] @ state["2.bias"]
        expected["4.weight"] += state["4.weight"] @ unmerges[1][index] / num_models
        expected["4.bias"] += state["4.bias"] / num_models
    for key, value in found.items():
        np.testing.assert_allclose(value.numpy(), expected[key], atol=1e-6)


def test_a_tensor_of_one_model_reads_groups() -> None:
    models = zipped([mlp([5, 7, 3], seed) for seed in range(2)], torch.randn(4, 5, generator=stream()))
    groups_KU = torch.tensor([[0, 1, 2, 3, 3, 4, 5], [6, 5, 4, 3, 2, 1, 0]])
    sources = everything(models) | {"2.weight": (1,), "2.bias": (1,)}
    found = zip_states(models, {"0.weight@0": groups_KU}, sources)
    # units 0 to 6 of model 1 are groups 6 to 0
    assert torch.equal(found["2.weight"], models[1].state["2.weight"].flip(1))
    assert torch.equal(found["2.bias"], models[1].state["2.bias"])
    hidden = (models[0].state["0.bias"][3] + models[0].state["0.bias"][4] + models[1].state["0.bias"][3]) / 3
    torch.testing.assert_close(found["0.bias"][3], hidden)


@pytest.mark.parametrize("num_models", [2, 3])
@pytest.mark.parametrize("name", ZIPPED)
def test_copies_in_other_orders_become_the_network_itself(name: str, num_models: int) -> None:
    make, inputs = ALL[name]
    inputs = torch.randn(40, *inputs.shape[1:], generator=stream(5))
    networks = [seeded(make)]
    specification = specify(networks[0], inputs[:4], stream())
    for seed in range(1, num_models):
        networks.append(copy.deepcopy(networks[0]))
        networks[-1].load_state_dict(specification.apply(networks[0].state_dict(), specification.random(stream(seed))))
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in networks]
    models = zipped(networks, inputs)
    correlations = unit_correlations([specification] * num_models, networks, inputs)
    groups = {symbol: zip_units(values_JJ, num_models) for symbol, values_JJ in correlations.items()}
    found = zip_states(models, groups, everything(models))
    for key, value in found.items():
        torch.testing.assert_close(value, before[0][key], rtol=1e-6, atol=1e-7)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ZIPPED)
def test_any_permutation_groups_to_the_mean_of_the_permuted(name: str) -> None:
    make, inputs = ALL[name]
    networks = [seeded(make, seed) for seed in range(2)]
    models = zipped(networks, inputs)
    specification = models[0].specification
    orders = specification.random(stream(1))
    groups = {symbol: torch.stack([torch.arange(len(order)), order.argsort()]) for symbol, order in orders.items()}
    found = zip_states(models, groups, everything(models))
    permuted = specification.apply(networks[1].state_dict(), orders)
    for key, value in networks[0].state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(found[key], (value + permuted[key]) / 2, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(found[key], value)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "dense"])
def test_networks_that_need_half_of_their_units_end_side_by_side(name: str) -> None:
    make, inputs = ALL[name]
    inputs = torch.randn(40, *inputs.shape[1:], generator=stream(5))
    networks = [seeded(make, seed) for seed in range(2)]
    specification = specify(networks[0], inputs[:4], stream())
    for network in networks:  # every unit twice
        twins = {name: torch.arange(symbol.size // 2).repeat(2) for name, symbol in specification.symbols.items()}
        network.load_state_dict(specification.apply(network.state_dict(), twins))
    models = zipped(networks, inputs)
    correlations = unit_correlations([specification] * 2, networks, inputs)
    groups = {symbol: zip_units(values_JJ, 2, alpha=0.0001, beta=1.0) for symbol, values_JJ in correlations.items()}
    fused = seeded(make)
    fused.load_state_dict(zip_states(models, groups, everything(models)))
    with torch.no_grad():
        (first, second), found = (_logits(network(inputs)) for network in networks), _logits(fused(inputs))
    torch.testing.assert_close(found, (first + second) / 2, rtol=1e-4, atol=1e-4)


def _logits(outputs: Tensor | dict[str, Tensor]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs["digit"]


@pytest.mark.parametrize("name", ALL)
def test_what_groups_cannot_stand_for_is_refused(name: str) -> None:
    make, inputs = ALL[name]
    network = seeded(make)
    specification = specify(network, inputs, stream())
    made = incoming(network, specification, inputs)
    if name in REFUSED:
        with pytest.raises(IncompatibleStrategyError, match=f"Found .*{REFUSED[name]}.*Did you mean within=false"):
            check_zip(specification, made)
    else:
        check_zip(specification, made)


def test_a_single_head_is_refused_too() -> None:
    task = Task(name="digit", kind="classification", outputs=3)
    network = build_vit(input_shape=(1, 8, 8), tasks=(task,), width=8, heads=1)
    specification = specify(network, images(), stream())
    with pytest.raises(
        IncompatibleStrategyError, match=r"activations multiplied by each other \(scaled_dot_product_attention\)"
    ):
        check_zip(specification, incoming(network, specification, images()))
