from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

import transfuse
from tests.strategy.weight_fusion.pictures import BUILT, copy_of, pictures, pool, stream
from transfuse.alignment import (
    ActivationMatching,
    NothingToAlignError,
    WeightMatching,
    specify,
    unit_correlations,
    zip_units,
)
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import Aligned, GitReBasin, LinearMerge, UniformSoup, ZipIt
from transfuse.types import HyperparameterError, IncompatibleStrategyError, NeedsContextError, NonFiniteError, Task

HIDDEN = "backbone.stages.0.0.weight@0"


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_copies_in_other_orders_are_fused_to_the_network_itself(
    toys, count: int, batch_norm: bool, within: bool
) -> None:
    data, (first,) = pool(toys, 1, batch_norm)
    specification = specify(first, data.train.inputs[:2], stream())
    members = [first]
    for seed in range(1, count):
        other = toys.network(0, batch_norm=batch_norm)
        other.load_state_dict(specification.apply(first.state_dict(), specification.random(stream(seed))))
        members.append(other)
    fused = ZipIt(within=within).apply(toys.context(members, data))
    assert fused.network is not None and fused.members == tuple(range(count))
    for key, value in fused.network.state_dict().items():
        if "running" not in key and value.is_floating_point():  # these are measured anew
            torch.testing.assert_close(value, first.state_dict()[key], rtol=1e-6, atol=1e-7)
    found = fused.diagnostics["align"]
    assert found["symbols"] == {HIDDEN: 8}
    if within:
        assert found["matcher"] == "zipit" and fused.looks == 0
        assert fused.weights == {"y": pytest.approx([1 / count] * count)}
        groups = found["groups"][HIDDEN]
        assert (groups["units"], groups["of_all_models"]) == (8, 8)
        assert groups["of_one_model"] == (8 if count == 1 else 0)
        # that of each unit with itself, which is less than 1 where nothing passes its activation function
        own = unit_correlations([specification], [first], data.train.inputs)[HIDDEN].diagonal().mean()
        assert groups["correlation"] == (None if count == 1 else pytest.approx(float(own)))


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("count", [2, 3])
def test_is_the_network_of_the_groups(toys, count: int, beta: float) -> None:
    data, members = pool(toys, count)
    before = [{key: value.clone() for key, value in member.state_dict().items()} for member in members]
    fused = ZipIt(alpha=0.5, beta=beta).apply(toys.context(members, data))
    specification = specify(members[0], data.train.inputs[:2], stream())
    correlation = unit_correlations([specification] * count, members, data.train.inputs)[HIDDEN]
    groups = zip_units(correlation, count, alpha=0.5, beta=beta).tolist()
    weight, bias = (f"backbone.stages.0.0.{name}" for name in ("weight", "bias"))
    assert fused.network is not None
    state = fused.network.state_dict()
    pairs = []
    for group in range(8):
        units = [(model, unit) for model in range(count) for unit in range(8) if groups[model][unit] == group]
        for key in (weight, bias):
            mean = torch.stack([before[model][key][unit] for model, unit in units]).mean(0)
            torch.testing.assert_close(state[key][group], mean)
        read = sum(before[model]["heads.y.linear.weight"][:, unit] for model, unit in units) / count
        torch.testing.assert_close(state["heads.y.linear.weight"][:, group], read)
        flat = [model * 8 + unit for model, unit in units]
        pairs += [float(correlation[one, other]) for one in flat for other in flat if one != other]
    torch.testing.assert_close(
        state["heads.y.linear.bias"], torch.stack([each["heads.y.linear.bias"] for each in before]).mean(0)
    )
    assert fused.diagnostics["align"]["groups"][HIDDEN]["correlation"] == pytest.approx(sum(pairs) / len(pairs))
    for member, each in zip(members, before, strict=True):
        assert all(torch.equal(value, each[key]) for key, value in member.state_dict().items())


@pytest.mark.parametrize("count", [2, 3])
def test_without_merges_within_it_is_activation_matching_and_the_mean(toys, count: int) -> None:
    data, members = pool(toys, count)
    context = toys.context(members, data)
    fused = ZipIt(within=False, examples=40).apply(context)
    expected = GitReBasin(align=ActivationMatching(examples=40)).apply(context)
    assert fused.network is not None and expected.network is not None
    for key, value in expected.network.state_dict().items():
        torch.testing.assert_close(fused.network.state_dict()[key], value, rtol=1e-6, atol=1e-7)
    assert fused.diagnostics["align"]["matcher"] == "activation_matching"


@pytest.mark.parametrize("name", BUILT)
def test_every_architecture_is_fused_to_a_network(toys, name: str) -> None:
    context, networks = pictures(toys, name)
    if name == "vit":
        with pytest.raises(IncompatibleStrategyError, match=r"Found units within blocks .*Did you mean within=false\?"):
            ZipIt().apply(context)
    fused = ZipIt(within=name != "vit").apply(context)
    assert fused.network is not None
    state = fused.network.state_dict()
    assert list(state) == list(networks[0].state_dict())
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    outputs = predict(fused.network, context.development.validation.inputs)["y"]
    assert outputs.shape == (60, 3) and bool(torch.isfinite(outputs).all())
    biases = [network.heads["y"].linear.bias for network in networks]
    torch.testing.assert_close(state["heads.y.linear.bias"], torch.stack(biases).mean(0).detach())
    if name in ("resnet", "cnn"):
        assert fused.diagnostics["batch_norm"] == "reestimate"


def test_heads_of_their_own_read_the_groups(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    members = [toys.train(toys.network(seed, [task]), data.train, seed=seed) for seed, task in enumerate(tasks)]
    fused = ZipIt().apply(toys.context(members, data))
    assert fused.network is not None and set(fused.validation) == {"a", "b"}
    specs = [specify(member, data.train.inputs[:2], stream()) for member in members]
    groups = zip_units(unit_correlations(specs, members, data.train.inputs)[HIDDEN], 2)
    for index, task in enumerate("ab"):
        own = members[index].heads[task].linear
        expected = torch.zeros_like(own.weight).index_add(1, groups[index], own.weight)
        torch.testing.assert_close(fused.network.get_submodule(f"heads.{task}.linear").weight, expected)
        assert torch.equal(fused.network.get_submodule(f"heads.{task}.linear").bias, own.bias)


def test_what_is_left_out_is_the_first_model_and_reads_the_groups(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    whole, *parts = (
        ZipIt(**fields).apply(context).network for fields in ({}, {"fuse": "backbone"}, {"skip": ("heads.*",)})
    )
    correlation = unit_correlations(
        [specify(members[0], data.train.inputs[:2], stream())] * 2, members, data.train.inputs
    )[HIDDEN]
    own = members[0].heads["y"].linear
    read = torch.zeros_like(own.weight).index_add(1, zip_units(correlation, 2)[0], own.weight)
    for network in parts:
        assert torch.equal(network.backbone.stages[0][0].weight, whole.backbone.stages[0][0].weight)
        torch.testing.assert_close(network.heads["y"].linear.weight, read)
        assert torch.equal(network.heads["y"].linear.bias, own.bias)


def test_units_of_tensors_that_are_left_out_stay(toys) -> None:
    context, networks = pictures(toys, "mlp")
    fused = ZipIt(skip=("backbone.stages.0.*",)).apply(context)
    assert list(fused.diagnostics["align"]["groups"]) == ["backbone.stages.1.0.weight@0"]
    assert fused.network is not None
    first = fused.network.backbone.stages[0][0]
    assert torch.equal(first.weight, networks[0].backbone.stages[0][0].weight)
    # of the second layer, rows are means of rows, and columns are where they were
    second = [network.backbone.stages[1][0].weight for network in networks]
    specification = specify(networks[0], context.development.train.inputs[:2], stream())
    found = unit_correlations([specification] * 2, networks, context.development.train.inputs)
    groups = zip_units(found["backbone.stages.1.0.weight@0"], 2).flatten()
    for group in range(6):
        mean = torch.cat(second)[groups == group].mean(0)
        torch.testing.assert_close(fused.network.backbone.stages[1][0].weight[group], mean)


def test_only_as_many_examples_are_compared_as_asked(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    few, all_of_them = (
        ZipIt(examples=examples).apply(context).diagnostics["align"]["groups"][HIDDEN] for examples in (3, 70)
    )
    assert few["correlation"] != pytest.approx(all_of_them["correlation"])


@pytest.mark.parametrize("name", BUILT)
def test_what_cannot_be_grouped_is_refused_before_training(toys, name: str) -> None:
    context, networks = pictures(toys, name)
    described = replace(context.base_models.description, build=partial(copy_of, networks[0]))
    ZipIt().check(context.development, context.base_models.description)  # cannot be told yet
    ZipIt(within=False).check(context.development, described)
    if name == "vit":
        with pytest.raises(IncompatibleStrategyError, match="which attention heads and groups, .* cannot follow"):
            ZipIt().check(context.development, described)
        return
    ZipIt().check(context.development, described)
    with pytest.raises(NothingToAlignError, match=r"Found no others: .*weight_fusion/uniform_soup\?"):
        ZipIt(only=("heads.*",)).check(context.development, described)
    with pytest.raises(NothingToAlignError, match="Found no others"):
        ZipIt(only=("heads.*",)).apply(context)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0.0}, r"`alpha` should be in \(0, 1\]. Found `alpha = 0.0`"),
        ({"alpha": 1.5}, r"`alpha` should be in \(0, 1\]. Found `alpha = 1.5`"),
        ({"alpha": float("nan")}, r"`alpha` should be in \(0, 1\]"),
        ({"beta": -0.1}, r"`beta` should be in \[0, 1\]. Found `beta = -0.1`"),
        ({"beta": 1.1}, r"`beta` should be in \[0, 1\]. Found `beta = 1.1`"),
        ({"beta": float("nan")}, r"`beta` should be in \[0, 1\]"),
        ({"examples": 1}, "`examples` should be >= 2. Found `examples = 1`"),
        ({"examples": 0}, "`examples` should be a whole number >= 1. Found `examples = 0`"),
        ({"batch_norm": "average"}, "`batch_norm` should be reestimate where units are merged"),
    ],
)
def test_bad_values(fields, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        ZipIt(**fields)


def test_what_does_not_suit(toys) -> None:
    data, members = pool(toys)
    description = toys.context(members, data).base_models.description
    with pytest.raises(IncompatibleStrategyError, match="weight_fusion/zipit aligns its models itself"):
        Aligned(inner=ZipIt(), matcher=WeightMatching()).check(data, description)
    with pytest.raises(NeedsContextError, match="weight_fusion/zipit needs the networks"):
        transfuse.merge([{"w": torch.zeros(2)}] * 2, method="zipit")
    with torch.no_grad():
        members[1].heads["y"].linear.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"`heads.y.linear.weight` of memory-1 has 1 of 24 values"):
        ZipIt().apply(toys.context(members, data))


def test_networks_trained_apart_are_fused_better_than_by_their_mean(toys) -> None:
    data, members = pool(toys, 3)
    context = toys.context(members, data)
    plain, zipped = (method.apply(context).validation["y"]["nll"] for method in (LinearMerge(), ZipIt()))
    assert zipped < plain
    assert UniformSoup().apply(context).validation["y"]["nll"] == pytest.approx(plain)
