from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

import transfuse
from tests.strategy.weight_fusion.pictures import BUILT, copy_of, pictures, pool, stream
from transfuse.alignment import WeightMatching, specify, squared_distance, transport_units
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import Aligned, LinearMerge, OTFusion
from transfuse.types import HyperparameterError, IncompatibleStrategyError, NeedsContextError, NonFiniteError, Task

COSTS = ("weights", "activations")


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_copies_in_other_orders_are_fused_to_the_network_itself(toys, cost: str, batch_norm: bool) -> None:
    data, (first,) = pool(toys, 1, batch_norm)
    specification = specify(first, data.train.inputs[:2], stream())
    members = [first]
    for seed in (1, 2):
        other = toys.network(0, batch_norm=batch_norm)
        other.load_state_dict(specification.apply(first.state_dict(), specification.random(stream(seed))))
        members.append(other)
    fused = OTFusion(cost=cost).apply(toys.context(members, data))
    assert fused.network is not None
    for key, value in fused.network.state_dict().items():
        if "running" not in key and value.is_floating_point():  # these are measured anew
            torch.testing.assert_close(value, first.state_dict()[key], rtol=1e-6, atol=1e-7)
    found = fused.diagnostics["align"]
    assert found["matcher"] == "ot_fusion" and found["symbols"] == {"backbone.stages.0.0.weight@0": 8}
    assert [row["squared_distance"] for row in found["members"]] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert all(row["squared_distance_before"] > 1.0 for row in found["members"])
    assert [row["models"] for row in found["barrier_before"]] == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("cost", COSTS)
def test_is_the_weighted_mean_of_the_moved(toys, cost: str, regularization: float) -> None:
    data, members = pool(toys, 3)
    context = toys.context(members, data)
    before = [{key: value.clone() for key, value in member.state_dict().items()} for member in members]
    losses = [context.base_models[index].validation["y"]["nll"] for index in range(3)]
    best = losses.index(min(losses))
    method = OTFusion(cost=cost, regularization=regularization, weights=(3.0, 1.0, 2.0))
    fused = method.apply(context)
    specification = specify(members[0], data.train.inputs[:2], stream())
    moved = [
        member.state_dict()
        if index == best
        else transport_units(
            specification,
            members[best],
            member,
            data.train.inputs,
            by_activations=cost == "activations",
            regularization=regularization,
        )
        for index, member in enumerate(members)
    ]
    assert fused.network is not None
    for key, value in fused.network.state_dict().items():
        mean = sum(weight * state[key] for weight, state in zip((3, 1, 2), moved, strict=True)) / 6
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)
    assert fused.weights == {"y": pytest.approx([0.5, 1 / 6, 1 / 3])} and fused.looks == 3
    found = fused.diagnostics["align"]
    assert found["reference"] == f"memory-{best}"
    assert [row["squared_distance"] for row in found["members"]] == [
        pytest.approx(squared_distance(members[best].state_dict(), state))
        for index, state in enumerate(moved)
        if index != best
    ]
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in member.state_dict().items())


@pytest.mark.parametrize("regularization", [0.0, 0.1])
@pytest.mark.parametrize("name", BUILT)
def test_every_architecture_is_fused_to_a_network(toys, name: str, regularization: float) -> None:
    context, networks = pictures(toys, name)
    method = OTFusion(regularization=regularization)
    if name == "vit" and regularization:
        with pytest.raises(
            IncompatibleStrategyError, match=r"attention heads and groups cannot be.*regularization=0\?"
        ):
            method.apply(context)
        return
    fused = method.apply(context)
    assert fused.network is not None
    state = fused.network.state_dict()
    assert list(state) == list(networks[0].state_dict())
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    outputs = predict(fused.network, context.development.validation.inputs)["y"]
    assert outputs.shape == (60, 3) and bool(torch.isfinite(outputs).all())
    # classes stay where they are
    biases = [network.heads["y"].linear.bias for network in networks]
    torch.testing.assert_close(state["heads.y.linear.bias"], torch.stack(biases).mean(0).detach())
    if "resnet" in name or name == "cnn":
        assert fused.diagnostics["batch_norm"] == "reestimate"


def test_heads_of_their_own_follow_their_backbone(toys) -> None:
    tasks = [Task(name=name, kind="classification", outputs=3) for name in ("a", "b")]
    data = toys.development(tasks)
    members = [toys.train(toys.network(seed, [task]), data.train, seed=seed) for seed, task in enumerate(tasks)]
    fused = OTFusion().apply(toys.context(members, data))
    assert fused.network is not None and set(fused.validation) == {"a", "b"}
    head, own = fused.network.get_submodule("heads.b.linear").weight, members[1].heads["b"].linear.weight
    assert torch.equal(head.sort(dim=1).values, own.sort(dim=1).values)


def test_only_as_many_examples_are_compared_as_asked(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    few, all_of_them = (
        OTFusion(cost="activations", examples=examples, regularization=0.05).apply(context) for examples in (3, 70)
    )
    name = "backbone.stages.0.0.weight"
    assert few.network is not None and all_of_them.network is not None
    assert not torch.allclose(few.network.state_dict()[name], all_of_them.network.state_dict()[name])


def test_mixing_attention_heads_is_refused_before_training(toys) -> None:
    context, networks = pictures(toys, "vit")
    described = replace(context.base_models.description, build=partial(copy_of, networks[0]))
    OTFusion().check(context.development, described)
    OTFusion(regularization=0.1).check(context.development, context.base_models.description)  # cannot be told yet
    with pytest.raises(IncompatibleStrategyError, match=r"Found units within blocks .*Did you mean regularization=0\?"):
        OTFusion(regularization=0.1).check(context.development, described)
    context, networks = pictures(toys, "resnet")
    described = replace(context.base_models.description, build=partial(copy_of, networks[0]))
    OTFusion(regularization=0.1).check(context.development, described)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cost": "gradients"}, "`cost` should be weights or activations. Found `cost = gradients`"),
        ({"regularization": -0.1}, "`regularization` should be >= 0 and finite. Found `regularization = -0.1`"),
        ({"regularization": float("inf")}, "`regularization` should be >= 0 and finite"),
        ({"regularization": float("nan")}, "`regularization` should be >= 0 and finite"),
        ({"examples": 1}, "`examples` should be >= 2. Found `examples = 1`"),
        ({"examples": 0}, "`examples` should be a whole number >= 1. Found `examples = 0`"),
        ({"batch_norm": "average"}, "`batch_norm` should be reestimate where units are moved"),
        ({"weights": (1.0, float("nan"))}, "`weights` should be finite"),
    ],
)
def test_bad_values(fields, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        OTFusion(**fields)


def test_what_does_not_suit(toys) -> None:
    data, members = pool(toys)
    description = toys.context(members, data).base_models.description
    with pytest.raises(HyperparameterError, match="`weights` should have 2 entries"):
        OTFusion(weights=(1.0,)).check(data, description)
    with pytest.raises(IncompatibleStrategyError, match="weight_fusion/ot_fusion aligns its models itself"):
        Aligned(inner=OTFusion(), matcher=WeightMatching()).check(data, description)
    with pytest.raises(NeedsContextError, match="weight_fusion/ot_fusion needs the networks"):
        transfuse.merge([{"w": torch.zeros(2)}] * 2, method="ot_fusion")
    with torch.no_grad():
        members[1].heads["y"].linear.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"`heads.y.linear.weight` of memory-1 has 1 of 24 values"):
        OTFusion().apply(toys.context(members, data))


def test_one_model_is_itself(toys) -> None:
    data, members = pool(toys, 1)
    fused = OTFusion(regularization=0.5).apply(toys.context(members, data))
    assert fused.network is not None and fused.looks == 0
    assert all(torch.equal(fused.network.state_dict()[key], value) for key, value in members[0].state_dict().items())


def test_the_barrier_before_is_that_of_the_members_as_they_were(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    plain = LinearMerge().apply(context).diagnostics["barrier"]["paths"]
    found = OTFusion().apply(context).diagnostics["align"]["barrier_before"]
    assert [row["barrier"] for row in found] == [path["barrier"] for path in plain]
