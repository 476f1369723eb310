from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from transfuse.alignment import ActivationMatching, StraightThrough, WeightMatching, specify, squared_distance
from transfuse.config import read
from transfuse.experiment import prepare
from transfuse.models.predict import predict
from transfuse.report.labels import differing
from transfuse.strategy.weight_fusion import (
    SWA,
    Aligned,
    GitReBasin,
    GreedySoup,
    LinearMerge,
    MergeMany,
    ModelCountError,
    TaskArithmetic,
    UniformSoup,
)
from transfuse.strategy.weight_fusion.permuted import PermutedModels
from transfuse.suggest import CONF
from transfuse.training.fit import Fit
from transfuse.training.settings import Devices
from transfuse.types import ConfigError, HyperparameterError, IncompatibleStrategyError, Task


def pool(toys, count: int = 2, batch_norm: bool = False):
    """Independently trained networks, each with its units in a random order of their own."""
    data = toys.development()
    members = [
        toys.train(toys.network(seed, batch_norm=batch_norm), data.train, seed=seed, steps=60) for seed in range(count)
    ]
    return data, members


def planted(toys, batch_norm: bool = False):
    """One trained network, and the same in two other orders."""
    data, (first,) = pool(toys, 1, batch_norm)
    specification = specify(first, data.train.inputs[:2], torch.Generator())
    members = [first]
    for seed in (1, 2):
        other = toys.network(0, batch_norm=batch_norm)
        order = specification.random(torch.Generator().manual_seed(seed))
        other.load_state_dict(specification.apply(first.state_dict(), order))
        members.append(other)
    return data, members


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}


@pytest.mark.parametrize("matcher", [WeightMatching(), ActivationMatching()])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_copies_in_other_orders_are_fused_to_the_network_itself(toys, matcher, batch_norm: bool) -> None:
    data, members = planted(toys, batch_norm)
    context = toys.context(members, data)
    before = [copied(member.state_dict()) for member in members]
    fused = Aligned(inner=UniformSoup(), matcher=matcher).apply(context)
    assert fused.network is not None
    for key, value in fused.network.state_dict().items():
        if "running" not in key and value.is_floating_point():  # these are measured anew
            torch.testing.assert_close(value, before[0][key], rtol=1e-6, atol=1e-7)
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in member.state_dict().items())
    found = fused.diagnostics["align"]
    assert found["matcher"] == matcher.name
    assert [row["squared_distance"] for row in found["members"]] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert all(row["squared_distance_before"] > 1.0 for row in found["members"])
    assert found["symbols"] == {"backbone.stages.0.0.weight@0": 8} and found["fixed"] == []
    assert all(row["barrier"]["y"].keys() == {"nll", "accuracy"} for row in found["barrier_before"])
    assert [row["models"] for row in found["barrier_before"]] == [[0, 1], [0, 2], [1, 2]]


def test_members_predict_as_before_and_keep_their_scores(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    specification = specify(members[1], data.train.inputs[:2], torch.Generator())
    states = [
        specification.apply(member.state_dict(), specification.random(torch.Generator().manual_seed(3)))
        for member in members
    ]
    permuted = PermutedModels(context.base_models, states)
    logits = context.base_models.logits("validation")["y"]
    for index, member in enumerate(permuted):
        assert member.validation == context.base_models[index].validation
        outputs = predict(member.network(), data.validation.inputs)["y"]
        torch.testing.assert_close(outputs, logits[index], rtol=1e-4, atol=1e-5)
        assert not torch.equal(member.state["backbone.stages.0.0.weight"], members[index].backbone.stages[0][0].weight)
    assert torch.equal(permuted.logits("validation")["y"], logits)
    assert len(permuted) == 2 and permuted.base is None and len(permuted.used()) == 2
    assert permuted.description is context.base_models.description


def test_the_best_member_is_the_reference(toys) -> None:
    data, members = pool(toys, 3)
    context = toys.context(members, data)
    losses = [context.base_models[index].validation["y"]["nll"] for index in range(3)]
    best = losses.index(min(losses))
    fused = Aligned(inner=GreedySoup(), matcher=WeightMatching()).apply(context)
    assert fused.diagnostics["align"]["reference"] == f"memory-{best}"
    assert [row["name"] for row in fused.diagnostics["align"]["members"]] == [
        f"memory-{index}" for index in range(3) if index != best
    ]
    plain = GreedySoup().apply(context)
    assert fused.looks == plain.looks + 3


def test_distances_shrink(toys) -> None:
    data, members = pool(toys, 3)
    aligned = Aligned(inner=UniformSoup(), matcher=WeightMatching()).apply(toys.context(members, data))
    rows = aligned.diagnostics["align"]["members"]
    assert len(rows) == 2
    for row in rows:
        assert row["squared_distance"] < row["squared_distance_before"]


def test_methods_with_a_start_are_aligned_to_it(toys) -> None:
    data, members = planted(toys)
    start = toys.network(9)
    context = toys.context(members, data, start)
    fused = Aligned(inner=TaskArithmetic(), matcher=WeightMatching()).apply(context)
    assert fused.diagnostics["align"]["reference"] == "memory--1"
    assert len(fused.diagnostics["align"]["members"]) == 3 and fused.looks == 0
    distances = {round(row["squared_distance"], 4) for row in fused.diagnostics["align"]["members"]}
    assert len(distances) == 1  # all three are one network


def test_members_with_heads_of_their_own(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    members = [toys.train(toys.network(seed, [task]), data.train, seed=seed) for seed, task in enumerate(tasks)]
    context = toys.context(members, data)
    fused = Aligned(inner=UniformSoup(), matcher=WeightMatching()).apply(context)
    assert fused.network is not None and set(fused.validation) == {"a", "b"}
    head = fused.network.get_submodule("heads.b.linear").weight
    assert not torch.equal(head, members[1].heads["b"].linear.weight)  # its columns moved with the backbone
    assert torch.equal(head.sort(dim=1).values, members[1].heads["b"].linear.weight.sort(dim=1).values)
    backbone = {key: value for key, value in members[0].state_dict().items() if key.startswith("backbone")}
    row = fused.diagnostics["align"]["members"][0]
    assert row["squared_distance_before"] == pytest.approx(squared_distance(backbone, members[1].state_dict()))


def test_straight_through_trains_and_ends_half_way(toys) -> None:
    data, members = pool(toys)
    context = replace(toys.context(members, data), fit=Fit(Devices(accelerator="cpu", devices=1, progress=False)))
    fused = Aligned(inner=UniformSoup(), matcher=StraightThrough(epochs=2, lr=0.05)).apply(context)
    assert fused.steps == 2 * (70 // 16 + 1)
    assert fused.network is not None
    names = [row["name"] for row in fused.diagnostics["align"]["members"]]
    (moved,) = (int(name.removeprefix("memory-")) for name in names)
    name = "backbone.stages.0.0.bias"
    # x = (a + P(b)) / 2
    permuted = 2 * fused.network.state_dict()[name] - members[1 - moved].state_dict()[name]
    torch.testing.assert_close(permuted.sort().values, members[moved].state_dict()[name].sort().values)


def test_a_pair_for_straight_through(toys) -> None:
    data, members = pool(toys, 3)
    description = toys.context(members, data).base_models.description
    with pytest.raises(ModelCountError, match=r"align=straight_through is for at most 2 models. Found 3."):
        Aligned(inner=UniformSoup(), matcher=StraightThrough()).check(data, description)


def test_what_cannot_be_aligned(toys) -> None:
    data, members = pool(toys)
    description = toys.context(members, data).base_models.description
    for inner in (GitReBasin(), SWA()):
        with pytest.raises(IncompatibleStrategyError, match=rf"{inner.name} aligns its models itself, or has none"):
            Aligned(inner=inner, matcher=WeightMatching()).check(data, description)
    with pytest.raises(HyperparameterError, match=r"`batch_norm` should be reestimate .*Found `batch_norm = keep`"):
        Aligned(inner=UniformSoup(batch_norm="keep"), matcher=WeightMatching()).check(data, description)
    with pytest.raises(IncompatibleStrategyError):
        Aligned(inner=LinearMerge(), matcher=WeightMatching()).check(data, replace(description, members=()))


@pytest.mark.parametrize(
    ("strategy", "key"),
    [
        (Aligned(inner=UniformSoup(), matcher=WeightMatching(spec={"*.weigth@0": "fixed"})), "`align.spec="),
        (GitReBasin(align=ActivationMatching(spec={"*.weigth@0": "fixed"})), "`align.spec="),
        (MergeMany(spec={"*.weigth@0": "fixed"}), "`spec = "),
    ],
)
def test_names_of_units_are_checked_before_training(toys, strategy, key: str) -> None:
    data, members = pool(toys)
    described = toys.context(members, data).base_models.description
    strategy.check(data, described)  # a pool that cannot build a network: told when the members are there
    build = partial(toys.network, 0)
    with pytest.raises(HyperparameterError, match=rf"should name symbols. Found {key}\*.weigth@0`, which matches none"):
        strategy.check(data, replace(described, build=build))
    right = {"*.weight@0": "fixed", "nothing": "free"}
    with pytest.raises(HyperparameterError, match="should map names of symbols to fixed"):
        Aligned(inner=UniformSoup(), matcher=WeightMatching(spec=right)).check(data, replace(described, build=build))


def test_a_run_names_the_key_of_the_group_before_training(tmp_path) -> None:
    run = composed(
        tmp_path, "strategy=weight_fusion/uniform_soup", "align=weight_matching", "align.spec={*.weigth@0:fixed}"
    )
    with pytest.raises(HyperparameterError, match=r"^align.spec should name symbols. Found `align.spec=\*.weigth@0`"):
        prepare(run)
    run = composed(tmp_path, "strategy=weight_fusion/uniform_soup", "strategy.skip=[*.biass]")
    with pytest.raises(HyperparameterError, match=r"`strategy.skip = \*.biass`, which matches none. Known: backbone"):
        prepare(run)


def test_matchers_refuse_values_out_of_range() -> None:
    with pytest.raises(HyperparameterError, match="`lr` should be > 0 and finite. Found `lr = 0"):
        StraightThrough(lr=0.0)
    with pytest.raises(HyperparameterError, match="`epochs` should be an integer >= 1. Found `epochs = 0`"):
        StraightThrough(epochs=0)


def composed(tmp_path, *overrides: str):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*overrides, f"paths.outputs={tmp_path}"])
    return read(config, tmp_path / "run")


def test_the_config_wraps_and_the_name_stays(tmp_path) -> None:
    strategy = composed(tmp_path, "strategy=weight_fusion/uniform_soup", "align=weight_matching").strategy
    assert isinstance(strategy, Aligned) and strategy.name == "weight_fusion/uniform_soup"
    held = composed(
        tmp_path, "strategy=weight_fusion/ties", "align=activation_matching", "align.spec={*.weight@0:fixed}"
    ).strategy
    assert isinstance(held, Aligned) and held.matcher.spec == {"*.weight@0": "fixed"}
    assert isinstance(composed(tmp_path, "strategy=weight_fusion/uniform_soup").strategy, UniformSoup)


def test_the_config_refuses_other_families_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"Found align=weight_matching and strategy=output_fusion/average. Did you"):
        composed(tmp_path, "strategy=output_fusion/average", "align=weight_matching")
    assert list(tmp_path.iterdir()) == []


def test_reports_tell_aligned_runs_apart(tmp_path) -> None:
    chosen = ["none", "weight_matching", "straight_through"]
    plain = [
        composed(tmp_path, "strategy=weight_fusion/uniform_soup", f"align={name}").plain["align"] for name in chosen
    ]
    assert differing([{"align": node} for node in plain]) == [
        {"align": "unaligned"},
        {"align": "weight_matching"},
        {"align": "straight_through"},
    ]
