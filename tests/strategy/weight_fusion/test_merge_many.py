from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import nn

import transfuse
from transfuse.alignment import match_weights, specify, squared_distance
from transfuse.strategy.weight_fusion import MergeMany
from transfuse.strategy.weight_fusion.merge_many import match_many
from transfuse.types import HyperparameterError, NeedsContextError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))


def spread(states) -> float:
    return sum(squared_distance(one, other) for one, other in combinations(states, 2))


def test_planted_permutations_of_many_are_undone() -> None:
    first = network(0)
    specification = specify(first, torch.randn(2, 4), stream())
    states = [specification.apply(first.state_dict(), specification.random(stream(seed))) for seed in range(4)]
    # a model is matched with a mean of scrambled ones: only the last model alone pulls all into its order
    found, sweeps = match_many([specification] * 2, states[:2], stream())
    assert spread(found) == 0.0 and sweeps == 2
    many, _ = match_many([specification] * 4, states, stream())
    assert spread(many) < 0.5 * spread(states)


def test_the_spread_shrinks_until_no_model_would_move() -> None:
    networks = [network(seed) for seed in range(3)]
    specification = specify(networks[0], torch.randn(2, 4), stream())
    states = [each.state_dict() for each in networks]
    before = [{key: value.clone() for key, value in state.items()} for state in states]
    found, sweeps = match_many([specification] * 3, states, stream())
    assert spread(found) < spread(states) and 1 < sweeps < 100
    assert all(torch.equal(state[key], kept[key]) for state, kept in zip(states, before, strict=True) for key in state)
    for index in range(3):
        others = [state for other, state in enumerate(found) if other != index]
        mean = {key: torch.stack([state[key].double() for state in others]).mean(0) for key in found[0]}
        order = match_weights(specification, mean, found[index], stream(7))
        moved = specification.apply(found[index], order)
        assert squared_distance(mean, moved) >= squared_distance(mean, found[index]) * (1 - 1e-9)


def test_sweeps_are_limited_and_one_model_stays() -> None:
    networks = [network(seed) for seed in range(3)]
    specification = specify(networks[0], torch.randn(2, 4), stream())
    states = [each.state_dict() for each in networks]
    assert match_many([specification] * 3, states, stream(), max_sweeps=1)[1] == 1
    (alone,), sweeps = match_many([specification], states[:1], stream())
    assert sweeps == 0 and all(torch.equal(alone[key], value) for key, value in states[0].items())


def test_fuses_to_the_mean_of_the_permuted(toys) -> None:
    data = toys.development()
    members = [toys.train(toys.network(seed), data.train, seed=seed, steps=60) for seed in range(3)]
    context = toys.context(members, data)
    fused = MergeMany().apply(context)
    specification = specify(members[0], data.train.inputs[:2], stream())
    states = [member.state_dict() for member in members]
    expected, sweeps = match_many([specification] * 3, states, context.generator("align"))
    assert fused.network is not None
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, torch.stack([state[key] for state in expected]).mean(0), rtol=1e-6, atol=1e-7)
    found = fused.diagnostics["align"]
    assert found["sweeps"] == sweeps and found["squared_distance"] < found["squared_distance_before"]
    assert found["squared_distance"] == pytest.approx(spread(expected) / 3)


def test_bad_values_and_missing_networks() -> None:
    with pytest.raises(HyperparameterError, match="`max_sweeps` should be an integer >= 1. Found `max_sweeps = 0`"):
        MergeMany(max_sweeps=0)
    with pytest.raises(NeedsContextError, match="weight_fusion/merge_many needs the networks"):
        transfuse.merge([{"w": torch.zeros(2)}] * 2, method="merge_many")
