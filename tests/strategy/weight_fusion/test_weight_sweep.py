from __future__ import annotations

from itertools import product
from math import comb

import pytest
import torch
from torch import nn

from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import SoupPath, merge
from transfuse.strategy.weight_fusion.requirements import ModelCountError
from transfuse.strategy.weight_fusion.weight_sweep import grid
from transfuse.types import HyperparameterError, NeedsContextError


@pytest.mark.parametrize("num_models", [1, 2, 3, 5])
@pytest.mark.parametrize("points", [3, 4, 6])
@pytest.mark.parametrize("corners", [2, 3])
def test_the_grid_is_the_simplex_with_few_corners(num_models: int, points: int, corners: int) -> None:
    found = grid(num_models, points, corners)
    everything = product(range(points), repeat=num_models)
    expected = {each for each in everything if sum(each) == points - 1 and sum(map(bool, each)) <= corners}
    assert set(found) == expected and len(found) == len(expected)
    inner = {1: 1, 2: points - 2, 3: comb(points - 2, 2)}
    assert len(found) == sum(comb(num_models, size) * inner[size] for size in range(1, corners + 1))
    assert [sum(map(bool, each)) for each in found] == sorted(sum(map(bool, each)) for each in found)


def nll(toys, members, weights, data) -> float:
    network = toys.network(0)
    states = [member.state_dict() for member in members]
    network.load_state_dict(
        {
            key: sum(weight * state[key].double() for weight, state in zip(weights, states, strict=True)).float()
            for key in states[0]
        }
    )
    outputs = predict(network, data.validation.inputs)["y"]
    return nn.functional.cross_entropy(outputs.double(), data.validation.targets["y"]).item()


def test_the_surface_and_its_best_point_equal_an_independent_loop(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    fused = SoupPath(points=5).apply(toys.context(members, data))
    surface = fused.diagnostics["surface"]
    assert len(surface) == fused.looks == 15 and fused.diagnostics["swept"] == [0, 1, 2]
    for entry in surface:
        assert entry["nll"] == pytest.approx(nll(toys, members, entry["weights"], data), rel=1e-5)
    lowest = min(surface, key=lambda entry: entry["nll"])
    assert fused.weights == {"y": lowest["weights"]}
    assert fused.fit["y"]["nll"] == pytest.approx(lowest["nll"], rel=1e-9)
    assert fused.fit["y"]["nll"] <= min(entry["nll"] for entry in surface[:3])
    state = fused.network.state_dict()
    for key, value in state.items():
        pairs = zip(lowest["weights"], members, strict=True)
        expected = sum(weight * member.state_dict()[key].double() for weight, member in pairs)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_the_best_members_are_swept(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(4, data)
    fused = SoupPath(points=3, members=2).apply(toys.context(members, data))
    surface = fused.diagnostics["surface"]
    singles = [entry["nll"] for entry in surface[:4]]
    best = sorted(sorted(range(4), key=singles.__getitem__)[:2])
    assert fused.diagnostics["swept"] == best and fused.looks == 5
    assert surface[4]["weights"] == [0.5 if index in best else 0.0 for index in range(4)]
    everything = SoupPath(points=4, members=None).apply(toys.context(members, data))
    assert everything.looks == 4 + 6 * 2 + 4 and everything.diagnostics["swept"] == [0, 1, 2, 3]
    assert SoupPath(points=4, members=None, corners=2).apply(toys.context(members, data)).looks == 4 + 6 * 2


def test_over_a_hill_the_best_member_is_left_alone(toys) -> None:
    data = toys.development()
    members = [toys.train(toys.network(seed), data.train, seed=seed) for seed in range(3)]
    fused = SoupPath(points=3).apply(toys.context(members, data))
    surface = fused.diagnostics["surface"]
    assert min(entry["nll"] for entry in surface[3:]) > min(entry["nll"] for entry in surface[:3])  # of several basins
    assert len(fused.members) == 1 and fused.diagnostics["verdict"] == "no mixture beats the best member"
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, members[fused.members[0]].state_dict()[key])


def test_a_higher_score_is_better_where_the_metric_says_so(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    fused = SoupPath(points=4).apply(toys.with_metric(toys.context(members, data), "accuracy"))
    assert fused.fit["y"]["accuracy"] == max(entry["accuracy"] for entry in fused.diagnostics["surface"])


def test_points_with_batch_norm_are_judged_as_they_end(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data, batch_norm=True)
    fused = SoupPath(points=4).apply(toys.context(members, data))
    outputs = predict(fused.network, data.validation.inputs)["y"]
    found = nn.functional.cross_entropy(outputs, data.validation.targets["y"]).item()
    assert fused.fit["y"]["nll"] == pytest.approx(found, rel=1e-5)


def test_bad_input(toys) -> None:
    data = toys.development()
    with pytest.raises(ModelCountError, match="fuses at least 2 models. Found 1"):
        SoupPath().check(data, toys.context([toys.network(0)], data).base_models.description)
    with pytest.raises(NeedsContextError, match="weight_fusion/weight_sweep needs the networks"):
        merge([{"w": torch.zeros(1)}] * 2, method="weight_sweep")
    for fields, message in (
        ({"points": 2}, "`points` should be >= 3. Found `points = 2`"),
        ({"corners": 4}, "`corners` should be 2 or 3. Found `corners = 4`"),
        ({"members": 1}, "`members` should be >= 2 or null. Found `members = 1`"),
    ):
        with pytest.raises(HyperparameterError, match=message):
            SoupPath(**fields)
