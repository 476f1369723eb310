from __future__ import annotations

import pytest
import torch

from transfuse.strategy.cma_es import cma_es
from transfuse.strategy.weight_fusion import (
    Della,
    GreedySoup,
    LinearMerge,
    Searched,
    TaskArithmetic,
    Ties,
    UniformSoup,
    merge,
)
from transfuse.strategy.weight_fusion.depth import depth_parts
from transfuse.strategy.weight_fusion.search_space import Value, search_space, with_values
from transfuse.types import HyperparameterError, MissingBaseError, NeedsContextError

TRIALS = 14


@pytest.mark.parametrize(
    "inner",
    [
        LinearMerge(),
        LinearMerge(weights=(1.0, 1.0, 4.0)),
        LinearMerge(weights="softmax_score"),
        TaskArithmetic(scale=0.9),
        Ties(),
    ],
    ids=["linear", "weights", "rule", "task_arithmetic", "ties"],
)
@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_never_below_the_inner_method_on_the_selection_score(toys, inner, metric: str) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    context = toys.with_metric(toys.context(members, data, start), metric)
    plain = inner.apply(context).validation["y"][metric]
    fused = Searched(inner=inner, trials=TRIALS).apply(context)
    tried = [entry["score"] for entry in fused.diagnostics["search"]["tried"]]
    assert tried[0] == pytest.approx(plain, rel=1e-6)
    best = max(tried) if metric == "accuracy" else min(tried)
    assert fused.fit["y"][metric] == best
    assert best >= plain if metric == "accuracy" else best <= plain
    assert fused.looks == len(tried) <= TRIALS and fused.diagnostics["search"]["metric"] == metric


def test_one_trial_is_the_inner_method_bit_for_bit(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    context = toys.context(members, data, start)
    for inner in (LinearMerge(), Ties(scope="model", density=0.3), TaskArithmetic(scale=0.4)):
        expected = inner.apply(context)
        found = Searched(inner=inner, trials=1).apply(context)
        for key, value in found.network.state_dict().items():
            assert torch.equal(value, expected.network.state_dict()[key]), (inner.name, key)
        assert found.validation == expected.validation and found.looks == 1


def test_the_taken_values_make_the_network(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    fused = Searched(inner=TaskArithmetic(), trials=30, dimension=3).apply(toys.context(members, data, start))
    taken = fused.diagnostics["search"]["taken"]
    assert set(taken) == {"scale", "weights.0", "weights.1"} and taken["scale"] != 1.0
    for key, value in fused.network.state_dict().items():
        origin = start.state_dict()[key]
        deltas = [member.state_dict()[key] - origin for member in members]
        expected = origin + taken["scale"] * (taken["weights.0"] * deltas[0] + taken["weights.1"] * deltas[1])
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert fused.validation["y"]["nll"] >= fused.fit["y"]["nll"] - 1e-9


def test_the_search_finds_the_scale_of_a_weak_default(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    context = toys.context(members, data, start)
    grid = TaskArithmetic(scale="search", weights=(0.5, 0.5)).apply(context).fit["y"]["nll"]
    fused = Searched(inner=TaskArithmetic(scale=0.01, weights=(0.5, 0.5)), trials=40).apply(context)
    assert fused.fit["y"]["nll"] <= grid + 0.01


def test_a_run_is_repeatable(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(3, data)
    first, second = (Searched(trials=TRIALS).apply(toys.context(members, data)) for _ in range(2))
    assert first.diagnostics["search"] == second.diagnostics["search"]


def test_a_refused_combination_is_passed_over(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    # density - epsilon <= 0 and density + epsilon > 1 are refused
    fused = Searched(inner=Della(density=0.3, epsilon=0.29), trials=TRIALS).apply(toys.context(members, data, start))
    assert 1 <= fused.looks < TRIALS


def test_batch_norm_is_the_inner_methods(toys) -> None:
    data = toys.development()
    _, members = toys.finetuned(2, data, batch_norm=True)
    context = toys.context(members, data)
    for mode in ("reestimate", "average"):
        inner = LinearMerge(batch_norm=mode)
        fused = Searched(inner=inner, trials=3).apply(context)
        assert fused.diagnostics["batch_norm"] == mode
        assert fused.diagnostics["search"]["tried"][0]["score"] == inner.apply(context).validation["y"]["nll"]


def test_values_of_parts_stay_within_the_dimension() -> None:
    parts = ["embedding", "early", "head"]

    def names(dimension: int) -> list[str]:
        return [value.name for value in search_space(TaskArithmetic(), 2, parts, dimension)]

    assert names(12) == [
        *[f"scale@{part}" for part in parts],
        *[f"weights.{model}@{part}" for part in parts for model in (0, 1)],
    ]
    assert names(5) == ["scale@embedding", "scale@early", "scale@head", "weights.0", "weights.1"]
    assert names(4) == ["scale", "weights.0", "weights.1"]
    assert names(2) == ["scale"]
    space = {value.field: value for value in search_space(Ties(density=0.2, scale=2.0), 1, ["head"], 12)}
    assert set(space) == {"density", "scale"}
    assert (space["density"].low, space["density"].high) == (0.01, 1.0)
    assert (space["scale"].low, space["scale"].default, space["scale"].high) == (0.0, 2.0, 2.0)


def test_positions_are_linear_around_the_default() -> None:
    value = Value(field="density", low=0.0, default=0.2, high=1.0)
    assert [value.at(at) for at in (-1.0, -0.5, 0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.1, 0.2, 0.6, 1.0])
    assert value.at(0.0) == 0.2


def test_a_part_has_its_own_values() -> None:
    scale = Value(field="scale", part="head", low=0.0, default=1.0, high=1.5)
    changed = with_values(TaskArithmetic(), {scale: 0.5}, 2, "head")
    assert isinstance(changed, TaskArithmetic) and changed.scale == 0.5
    inner = TaskArithmetic()
    assert with_values(inner, {scale: 0.5}, 2, "early") is inner


def test_parts_follow_the_depth(toys) -> None:
    network = toys.network(0, batch_norm=True)
    found = depth_parts(network, list(network.state_dict()))
    assert {key: part for key, part in found.items() if key.startswith("heads.")} == {
        "heads.y.linear.weight": "head",
        "heads.y.linear.bias": "head",
    }
    assert {part for key, part in found.items() if key.startswith("backbone.")} == {"early"}
    keys = [f"layers.{index}" for index in range(6)]
    assert list(depth_parts(torch.nn.Identity(), keys).values()) == ["early"] * 2 + ["middle"] * 2 + ["late"] * 2


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_cma_es_makes_a_quadratic_small(dimension: int) -> None:
    tried: list[tuple[float, ...]] = []

    def objective(position: tuple[float, ...]) -> float | None:
        tried.append(position)
        return None if len(tried) == 3 else sum((at - 0.4) ** 2 for at in position)

    cma_es(objective, dimension=dimension, trials=120, seed=1)
    assert tried[0] == (0.0,) * dimension and len(tried) == 120
    assert all(-1 <= at <= 1 for position in tried for at in position)
    assert min(sum((at - 0.4) ** 2 for at in position) for position in tried) < 0.03 * dimension * 0.16


def test_what_does_not_fit_is_refused(toys) -> None:
    with pytest.raises(HyperparameterError, match=r"works tensor by tensor.*Found weight_fusion/greedy_soup"):
        Searched(inner=GreedySoup())
    with pytest.raises(HyperparameterError, match="numbers that can be searched. Found weight_fusion/uniform_soup"):
        Searched(inner=UniformSoup())
    with pytest.raises(HyperparameterError, match="numbers, which are searched here. Found scale = search"):
        Searched(inner=TaskArithmetic(scale="search"))
    for field in ("trials", "dimension"):
        with pytest.raises(HyperparameterError, match=f"`{field}` should be >= 1. Found `{field} = 0`"):
            Searched(**{field: 0})
    pool = toys.context([toys.network(0), toys.network(1)], toys.development()).base_models.description
    with pytest.raises(MissingBaseError, match="weight_fusion/task_arithmetic needs the weights"):
        Searched(inner=TaskArithmetic()).check(toys.development(), pool)
    with pytest.raises(NeedsContextError, match="weight_fusion/searched needs the networks and labelled validation"):
        merge([{"w": torch.zeros(1)}] * 2, method="searched")
