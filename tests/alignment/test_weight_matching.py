from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.alignment.networks import OWN, SHIPPED, seeded
from transfuse.alignment import Specification, WeightMatching, match_weights, specify, squared_distance
from transfuse.types import HyperparameterError

ALL = {**SHIPPED, **OWN}
GOLDEN = Path(__file__).parents[1] / "golden" / "weight_fusion"
EXACT = sorted(ALL.keys() - {"residual", "grouped"})  # one assignment a symbol, or a family, is exact there


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def specified(name: str) -> tuple[nn.Module, Specification]:
    make, inputs = ALL[name]
    network = seeded(make)
    return network, specify(network, inputs, stream())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", EXACT)
def test_a_planted_permutation_is_recovered(name: str, seed: int) -> None:
    network, specification = specified(name)
    state = network.state_dict()
    planted = specification.apply(state, specification.random(stream(seed)))
    assert squared_distance(state, planted) > 0
    found = specification.apply(planted, match_weights(specification, state, planted, stream(seed)))
    for key, value in state.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("name", ALL)
def test_the_distance_never_grows_and_a_second_matching_moves_nothing(name: str) -> None:
    reference, specification = specified(name)
    first, second = reference.state_dict(), seeded(ALL[name][0], seed=1).state_dict()
    once = specification.apply(second, match_weights(specification, first, second, stream()))
    assert squared_distance(first, once) < squared_distance(first, second)
    again = match_weights(specification, first, once, stream(1))
    assert all(torch.equal(again[key], value) for key, value in specification.identity().items())


def mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_one_hidden_layer_equals_brute_force() -> None:
    torch.manual_seed(0)
    first, second = mlp([3, 5, 2]), mlp([3, 5, 2])
    specification = specify(first, torch.randn(2, 3), stream())
    found = match_weights(specification, first.state_dict(), second.state_dict(), stream())
    a, b = ({k: v.double().numpy() for k, v in net.state_dict().items()} for net in (first, second))

    def distance(order: tuple[int, ...]) -> float:
        rows = list(order)
        return float(
            ((a["0.weight"] - b["0.weight"][rows]) ** 2).sum()
            + ((a["0.bias"] - b["0.bias"][rows]) ** 2).sum()
            + ((a["2.weight"] - b["2.weight"][:, rows]) ** 2).sum()
        )

    assert tuple(found["0.weight@0"].tolist()) == min(permutations(range(5)), key=distance)


def golden(name: str, widths: list[int], keys: list[str]) -> tuple[np.lib.npyio.NpzFile, Specification, list]:
    content = np.load(GOLDEN / f"{name}.npz")
    network = mlp(widths)
    specification = specify(network, torch.randn(2, widths[0]), stream())
    states = []
    for model in "AB":
        ours = network.state_dict()
        for index, key in enumerate(keys):
            for part in ("weight", "bias"):
                ours[f"{2 * index}.{part}"] = torch.from_numpy(content[f"in_{model}.{key}.{part}"]).clone()
        states.append(ours)
    return content, specification, states


LAYERS = [f"layer{index}" for index in range(4)]


@pytest.mark.parametrize("seed", range(5))
def test_golden_planted_permutations_for_any_order(seed: int) -> None:
    content, specification, (first, second) = golden(
        "gitrebasin_pytorch_weight_matching_planted", [12, 24, 24, 24, 5], LAYERS
    )
    found = match_weights(specification, first, second, stream(seed))
    for index in range(3):
        assert found[f"{2 * index}.weight@0"].tolist() == content[f"out_P_{index}"].astype(int).tolist()


@pytest.mark.parametrize(
    ("name", "widths", "keys"),
    [
        ("gitrebasin_pytorch_weight_matching_random", [12, 24, 24, 24, 5], LAYERS),
        ("rebasin_pcd_mlp", [12, 20, 20, 5], ["0", "2", "4"]),
    ],
)
def test_golden_distances(name: str, widths: list[int], keys: list[str]) -> None:
    content, specification, (first, second) = golden(name, widths, keys)
    assert squared_distance(first, second) == pytest.approx(float(content["out_sqdist_before"]), rel=1e-5)
    permuted = specification.apply(second, match_weights(specification, first, second, stream(), restarts=3))
    assert squared_distance(first, permuted) <= 1.02 * float(content["out_sqdist_after"])
    network = mlp(widths).eval()
    inputs = torch.randn(16, widths[0], generator=stream())
    outputs: list[Tensor] = []
    for state in (second, permuted):
        network.load_state_dict(state)
        outputs.append(network(inputs).detach())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)


def test_restarts_are_never_worse() -> None:
    reference, specification = specified("vit")
    first, second = reference.state_dict(), seeded(ALL["vit"][0], seed=1).state_dict()

    def distance(restarts: int) -> float:
        found = match_weights(specification, first, second, stream(), restarts=restarts)
        return squared_distance(first, specification.apply(second, found))

    assert distance(4) <= distance(1) + 1e-9


def test_running_statistics_have_no_say() -> None:
    reference, specification = specified("resnet")
    first, second = reference.state_dict(), seeded(ALL["resnet"][0], seed=1).state_dict()
    loud = {key: value * 1000 if "running" in key else value for key, value in first.items()}
    found = [match_weights(specification, state, second, stream()) for state in (first, loud)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_restarts_are_counted_from_one() -> None:
    with pytest.raises(HyperparameterError, match="`restarts` should be an integer >= 1. Found `restarts = 0`"):
        WeightMatching(restarts=0)
