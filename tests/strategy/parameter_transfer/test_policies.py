from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.parameter_transfer.cases import BUILT, POLICIES, problem, trained
from transfuse.models.network import head_names

FROZEN = {"batch_norm_only", "bitfit", "linear_probe"}


@pytest.mark.parametrize("name", POLICIES)
def test_a_paused_training_gives_the_unbroken_ones_bits(name: str, tmp_path: Path) -> None:
    whole = trained(POLICIES[name], problem(tmp_path / "a"))
    arm = POLICIES[name].start(problem(tmp_path / "b"))
    for step in (1, 4, arm.total_steps):
        arm.advance(step)
    network = arm.finish().network
    assert network is not None
    assert list(network.state_dict()) == list(whole)
    assert all(torch.equal(value, whole[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", POLICIES)
def test_the_source_stays_and_the_result_is_a_plain_network(name: str, tmp_path: Path) -> None:
    context = problem(tmp_path)
    source = context.base_models[0]
    before = {key: value.clone() for key, value in source.state.items()}
    fused = POLICIES[name].apply(context)
    assert fused.network is not None
    assert all(torch.equal(source.state[key], before[key]) for key in before)
    pointers = {value.data_ptr() for value in source.state.values()}
    assert not pointers & {value.data_ptr() for value in fused.network.state_dict().values()}
    fresh = context.architecture.build(context.development.input_shape, context.development.tasks, torch.Generator())
    assert list(fused.network.state_dict()) == list(fresh.state_dict())
    assert fused.steps == (0 if name == "linear_probe" else 6)
    assert {"nll", "accuracy"} <= fused.validation["y"].keys() if "y" in fused.validation else fused.validation


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"batch_norm_only"}))
@pytest.mark.parametrize("network", BUILT)
def test_every_shipped_network_can_be_transferred(name: str, network: str, tmp_path: Path) -> None:
    context = problem(tmp_path, network, steps=2)
    POLICIES[name].check(context.development, context.base_models.description)
    assert all(value.isfinite().all() for value in trained(POLICIES[name], context).values())


@pytest.mark.parametrize("head", ["zero", "class_mean", "linear_probe", "keep"])
def test_heads_start_as_asked(head: str, tmp_path: Path) -> None:
    from transfuse.strategy.parameter_transfer import BitFit

    context = problem(tmp_path, steps=1, keep="last")
    plan = BitFit(head=head).prepare(context.base_models[0], context.development, context.generator("init"))
    names = head_names(plan.network)
    state = plan.network.state_dict()
    if head == "zero":
        assert all(not state[name].any() for name in names)
    if head == "keep":
        assert all(torch.equal(state[name], context.base_models[0].state[name]) for name in names)
    assert len(plan.leading) == (head in ("class_mean", "linear_probe"))
    assert BitFit(head=head).apply(context).network is not None
