from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.alignment import WeightMatching, specify
from transfuse.base_models import PerTask
from transfuse.config import read
from transfuse.models.predict import predict
from transfuse.strategy.baseline import BestSingle
from transfuse.strategy.output_fusion import Average
from transfuse.strategy.weight_fusion import (
    EMA,
    Aligned,
    GitReBasin,
    GreedySoup,
    LinearMerge,
    Repair,
    Searched,
    TaskArithmetic,
    Ties,
    UniformSoup,
    merge,
)
from transfuse.strategy.weight_fusion.renormalization import unit_moments
from transfuse.suggest import CONF
from transfuse.types import (
    HyperparameterError,
    IncompatibleStrategyError,
    MissingBaseError,
    NeedsContextError,
)

LAYER = "backbone.stages.0.0"


def pool(toys, count: int = 2, batch_norm: bool = False):
    """Independently trained networks."""
    data = toys.development()
    members = [
        toys.train(toys.network(seed, batch_norm=batch_norm), data.train, seed=seed, steps=60) for seed in range(count)
    ]
    return data, members


def moments(network, inputs: Tensor) -> tuple[Tensor, Tensor]:
    found = unit_moments(network, [LAYER], inputs)[LAYER]
    return found.mean_U, found.deviation_U


def assert_average(network, members, shares, inputs: Tensor) -> None:
    """Each unit's mean and deviation are the members' averages."""
    for found, *of_members in zip(
        moments(network, inputs), *(moments(member, inputs) for member in members), strict=True
    ):
        expected = sum(share * value for share, value in zip(shares, of_members, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("inner", "shares"),
    [
        (UniformSoup(), (0.5, 0.5)),
        (LinearMerge(weights=(1.0, 3.0)), (0.25, 0.75)),
        (LinearMerge(weights=(3.0, -1.0)), (0.5, 0.5)),  # deviations cannot be averaged by negative shares
        (LinearMerge(weights=(0.5, 0.25), normalize=False), (0.5, 0.5)),
        (TaskArithmetic(scale=0.4), (0.5, 0.5)),
        (Ties(), (0.5, 0.5)),
    ],
    ids=["soup", "weighted", "negative", "not_normalized", "task_arithmetic", "ties"],
)
def test_units_have_the_average_mean_and_deviation_of_the_members(toys, inner, shares) -> None:
    data, members = pool(toys)
    context = toys.context(members, data, toys.network(7))
    fused, plain = Repair(inner=inner).apply(context), inner.apply(context)
    assert fused.network is not None and plain.network is not None
    assert_average(fused.network, members, shares, data.train.inputs)
    with pytest.raises(AssertionError, match="not close"):
        assert_average(plain.network, members, shares, data.train.inputs)
    found = fused.diagnostics["repair"]
    assert found["shares"] == pytest.approx(list(shares)) and found["examples"] == len(data.train)
    assert found["left"] == {"heads.y.linear": "head"} and found["validation_before"] == plain.validation
    deviation = (moments(plain.network, data.train.inputs)[1]) / sum(
        share * moments(member, data.train.inputs)[1] for share, member in zip(shares, members, strict=True)
    )
    (row,) = found["layers"]
    assert row == {
        "name": LAYER,
        "units": 8,
        "deviation_before": pytest.approx(float(deviation.median()), rel=1e-5),
        "shifted": True,
    }
    assert fused.validation != plain.validation and fused.fit == {} and fused.looks == 0
    assert fused.weights == plain.weights and fused.members == (0, 1)
    outputs = predict(fused.network, data.validation.inputs)["y"]
    loss = torch.nn.functional.cross_entropy(outputs, data.validation.targets["y"])
    assert fused.validation["y"]["nll"] == pytest.approx(float(loss), rel=1e-5)


def test_the_head_is_the_inner_methods(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    fused, plain = (strategy.apply(context).network.state_dict() for strategy in (Repair(), LinearMerge()))
    same = {key for key in fused if torch.equal(fused[key], plain[key])}
    assert same == {"heads.y.linear.weight", "heads.y.linear.bias"} and fused.keys() == plain.keys()


def test_one_member_is_unchanged(toys) -> None:
    for batch_norm in (False, True):
        data, members = pool(toys, 1, batch_norm)
        fused = Repair(inner=LinearMerge()).apply(toys.context(members, data))
        found = predict(fused.network, data.validation.inputs)["y"]
        expected = predict(members[0], data.validation.inputs)["y"]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_network_with_batch_norm_is_the_inner_methods(toys) -> None:
    data, members = pool(toys, 3, batch_norm=True)
    context = toys.context(members, data)
    fused, plain = Repair().apply(context), LinearMerge().apply(context)
    assert fused.diagnostics["batch_norm"] == "reestimate"
    assert fused.diagnostics["repair"]["left"] == {LAYER: "followed by BatchNorm", "heads.y.linear": "head"}
    assert fused.diagnostics["repair"]["layers"] == [] and fused.validation == plain.validation
    for key, value in fused.network.state_dict().items():
        assert torch.equal(value, plain.network.state_dict()[key]), key


def test_what_the_inner_method_does_not_fuse_stays(toys) -> None:
    data, members = pool(toys)
    fused = Repair(inner=LinearMerge(skip=("backbone.*.weight",))).apply(toys.context(members, data))
    assert fused.diagnostics["repair"]["left"][LAYER] == "not fused"
    weight = f"{LAYER}.weight"
    assert torch.equal(fused.network.state_dict()[weight], members[0].state_dict()[weight])


def test_examples_are_drawn_by_the_seed(toys) -> None:
    data, members = pool(toys)
    context = toys.context(members, data)
    few = Repair(examples=20).apply(context)
    assert few.diagnostics["repair"]["examples"] == 20
    again, most = Repair(examples=20).apply(context), Repair(examples=1000).apply(context)
    name = f"{LAYER}.weight"
    assert torch.equal(few.network.state_dict()[name], again.network.state_dict()[name])
    assert not torch.equal(few.network.state_dict()[name], most.network.state_dict()[name])
    assert most.diagnostics["repair"]["examples"] == len(data.train)


def test_the_endpoints_are_the_aligned_members(toys) -> None:
    data, (first,) = pool(toys, 1)
    specification = specify(first, data.train.inputs[:2], torch.Generator())
    order = specification.random(torch.Generator().manual_seed(2))
    other = toys.network(0)
    other.load_state_dict(specification.apply(first.state_dict(), order))
    context = toys.context([first, other], data)
    fused = Aligned(inner=Repair(), matcher=WeightMatching()).apply(context)
    # the copy in another order is put in order again, and its units have the statistics of the first one's
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, first.state_dict()[key], rtol=1e-5, atol=1e-6)
    (row,) = fused.diagnostics["repair"]["layers"]
    assert row["deviation_before"] == pytest.approx(1.0) and fused.diagnostics["align"]["matcher"] == "weight_matching"
    unaligned = Repair().apply(context)
    assert not torch.allclose(unaligned.network.state_dict()[f"{LAYER}.weight"], first.state_dict()[f"{LAYER}.weight"])


@pytest.mark.parametrize("wrapper", [Repair, Searched])
def test_what_the_inner_method_starts_from_is_the_reference(toys, wrapper) -> None:
    data, members = pool(toys)
    context = toys.context(members, data, toys.network(9))
    for inner, reference in ((TaskArithmetic(), {"memory--1"}), (LinearMerge(), {"memory-0", "memory-1"})):
        outer = wrapper(inner=inner) if wrapper is Repair else wrapper(inner=inner, trials=1)
        fused = Aligned(inner=outer, matcher=WeightMatching()).apply(context)
        assert fused.diagnostics["align"]["reference"] in reference


def test_members_of_several_tasks_share_one_trunk(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = Repair().apply(context)
    assert fused.network is not None
    networks = [member.network() for member in context.base_models]
    assert_average(fused.network, networks, (0.5, 0.5), context.development.train.inputs)
    found = fused.network.state_dict()
    for index, task in enumerate(("sign", "value")):
        head = f"heads.{task}.linear.weight"
        assert torch.equal(found[head], context.base_models[index].state[head])
    assert fused.validation.keys() == {"sign", "value"}


def test_members_and_data_are_not_changed(toys) -> None:
    data, members = pool(toys)
    before = [{key: value.clone() for key, value in member.state_dict().items()} for member in members]
    inputs = data.train.inputs.clone()
    Repair().apply(toys.context(members, data))
    assert torch.equal(inputs, data.train.inputs)
    for member, state in zip(members, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in member.state_dict().items())


def test_what_does_not_fit_is_refused(toys) -> None:
    for inner in (GreedySoup(), GitReBasin(), EMA(), Average(), BestSingle(), Repair()):
        with pytest.raises(
            HyperparameterError, match=rf"`inner` should be a weight fusion .* Found {inner.name}\. Did"
        ):
            Repair(inner=inner)
    with pytest.raises(HyperparameterError, match=r"`inner` should have numbers.* Found scale = search"):
        Repair(inner=TaskArithmetic(scale="search"))
    with pytest.raises(HyperparameterError, match=r"reestimate: .* Found `inner.batch_norm = keep`"):
        Repair(inner=LinearMerge(batch_norm="keep"))
    for examples in (0, 1.5, True):
        with pytest.raises(HyperparameterError, match=f"`examples` should be a whole number >= 1. Found .*{examples}"):
            Repair(examples=examples)
    data, members = pool(toys)
    description = toys.context(members, data).base_models.description
    with pytest.raises(MissingBaseError, match="weight_fusion/task_arithmetic needs the weights"):
        Repair(inner=TaskArithmetic()).check(data, description)
    with pytest.raises(IncompatibleStrategyError, match="aligns its models itself"):
        Aligned(inner=GitReBasin(), matcher=WeightMatching()).check(data, description)
    Aligned(inner=Repair(), matcher=WeightMatching()).check(data, description)
    with pytest.raises(NeedsContextError, match=r"weight_fusion/repair needs the networks and training inputs; state"):
        merge([{"w": torch.zeros(1)}] * 2, method="repair")


def test_the_config_takes_an_inner_method_and_align(tmp_path) -> None:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        overrides = [
            "strategy=weight_fusion/repair",
            "strategy/weight_fusion@strategy.inner=ties",
            "strategy.inner.density=0.5",
            "align=weight_matching",
            f"paths.outputs={tmp_path}",
        ]
        strategy = read(compose("config", overrides=overrides), tmp_path / "run").strategy
    assert isinstance(strategy, Aligned) and strategy.name == "weight_fusion/repair"
    repair = strategy.inner
    assert isinstance(repair, Repair) and repair.examples == 1024
    assert isinstance(repair.inner, Ties) and repair.inner.density == 0.5
