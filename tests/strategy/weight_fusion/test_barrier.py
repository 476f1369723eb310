from __future__ import annotations

import pytest
import torch
from torch import nn

from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import UniformSoup
from transfuse.strategy.weight_fusion.barrier import barrier_of, interpolated, paths
from transfuse.strategy.weight_fusion.parts import take_apart


def test_barrier_is_the_height_above_the_chord() -> None:
    assert barrier_of([1.0, 3.0, 2.0]) == 1.5
    assert barrier_of([0.9, 0.3, 0.7], upward=True) == pytest.approx(0.5)
    assert barrier_of([1.0, 0.0, 1.0]) == 0.0  # a path through a valley has none


def test_interpolated_statistics_follow_the_law_of_total_variance() -> None:
    first = {"n.running_mean": torch.tensor([0.0]), "n.running_var": torch.tensor([1.0]), "n.count": torch.tensor(1)}
    second = {"n.running_mean": torch.tensor([2.0]), "n.running_var": torch.tensor([3.0]), "n.count": torch.tensor(1)}
    middle = interpolated(first, second, 0.25)
    # E[var] + var[mean] = 0.75 * 1 + 0.25 * 3 + 0.75 * 0.25 * 4
    assert middle["n.running_mean"].item() == 0.5 and middle["n.running_var"].item() == pytest.approx(2.25)


def test_paths_are_the_loss_of_interpolated_networks(toys) -> None:
    data = toys.development()
    networks = [toys.train(toys.network(seed), data.train, seed=seed) for seed in range(3)]
    context = toys.context(networks, data)
    parts = take_apart(context, with_base=False)
    found = paths(context, parts)
    assert [(path.first, path.second) for path in found] == [(0, 1), (0, 2), (1, 2)]
    network = toys.network(0)
    for path in found:
        first, second = parts.states[path.first], parts.states[path.second]
        for step, value in enumerate(path.scores["y"]["nll"]):
            t = step / 10
            network.load_state_dict({key: (1 - t) * first[key] + t * second[key] for key in first})
            outputs = predict(network, data.validation.inputs)["y"]
            expected = nn.functional.cross_entropy(outputs, data.validation.targets["y"]).item()
            assert value == pytest.approx(expected, rel=1e-4)


def test_many_models_are_compared_with_the_best(toys) -> None:
    data = toys.development()
    networks = [toys.train(toys.network(seed), data.train, seed=seed, steps=5 + 5 * seed) for seed in range(6)]
    context = toys.context(networks, data)
    found = paths(context, take_apart(context, with_base=False))
    scores = [member.validation["y"]["nll"] for member in context.base_models]
    best = scores.index(min(scores))
    assert [(path.first, path.second) for path in found] == [(best, index) for index in range(6) if index != best]


def test_batch_norm_is_measured_at_each_point(toys) -> None:
    data = toys.development()
    start, networks = toys.finetuned(2, data, batch_norm=True)
    context = toys.context(networks, data, start)
    (path,) = paths(context, take_apart(context, with_base=False))
    soup = UniformSoup().apply(context).network
    middle = nn.functional.cross_entropy(
        predict(soup, data.validation.inputs)["y"], data.validation.targets["y"]
    ).item()
    assert path.scores["y"]["nll"][5] == pytest.approx(middle, rel=0.05)
    assert {"nll", "accuracy"} == set(path.scores["y"])


def test_the_record_holds_paths_and_geometry(toys) -> None:
    data = toys.development()
    start, networks = toys.finetuned(2, data)
    diagnostics = UniformSoup().apply(toys.context(networks, data, start)).diagnostics
    assert diagnostics["geometry"]["vectors"] == "task vectors"
    assert diagnostics["barrier"]["largest"] == diagnostics["barrier"]["paths"][0]["barrier"]["y"]["nll"]
    alone = UniformSoup().apply(toys.context(networks, data)).diagnostics
    assert alone["geometry"]["vectors"] == "weights"
    assert UniformSoup().apply(toys.context(networks[:1], data)).diagnostics["barrier"] is None
