from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Seeds, Setting, Source, SourceAndTarget
from transfuse.strategy.parameter_transfer import FullFinetune
from transfuse.types import HyperparameterError, IncompatibleStrategyError, Task


def transfer(target: Task = SIGN, **training: Any) -> Setting:
    return make_setting(make_development(target, source=make_development(SIGN)), **training)


def test_it_starts_from_the_sources_backbone_and_a_fresh_head(tmp_path: Path) -> None:
    context = make_context(transfer(), Source(), tmp_path)
    source = context.base_models[0]
    plan = FullFinetune().prepare(source, context.development, context.generator("init"))
    fresh = context.architecture.build((4,), (SIGN,), context.generator("init")).state_dict()
    for name, value in plan.network.state_dict().items():
        expected = fresh if name.startswith("heads.") else source.state
        assert torch.equal(value, expected[name]), name
    assert plan.report["coverage"] == 1.0
    assert all(name.startswith("heads.") for name in plan.report["fresh"])


def test_a_kept_head_is_the_sources(tmp_path: Path) -> None:
    context = make_context(transfer(), Source(), tmp_path)
    strategy = FullFinetune(head="keep")
    strategy.check(context.development, context.base_models.description)
    plan = strategy.prepare(context.base_models[0], context.development, context.generator("init"))
    assert all(
        torch.equal(value, context.base_models[0].state[name]) for name, value in plan.network.state_dict().items()
    )


def test_the_source_is_not_changed_and_shares_no_storage(tmp_path: Path) -> None:
    context = make_context(transfer(), Source(), tmp_path)
    source = context.base_models[0]
    before = {name: value.clone() for name, value in source.state.items()}
    network = FullFinetune().apply(context).network
    assert network is not None
    assert all(torch.equal(source.state[name], before[name]) for name in before)
    pointers = {value.data_ptr() for value in source.state.values()}
    assert not pointers & {value.data_ptr() for value in network.state_dict().values()}
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_rates_of_backbone_and_head_are_their_own(tmp_path: Path) -> None:
    """With one SGD step, a backbone factor of 1e-9 leaves the source's backbone where it was; the head moves."""
    setting = transfer(epochs=None, steps=1, batch_size=48, optimizer="sgd", lr=0.1, schedule="constant", keep="last")
    context = make_context(setting, Source(), tmp_path)
    strategy = FullFinetune(lr_factor=1e-9)
    start = strategy.prepare(
        context.base_models[0], context.development, context.generator("init")
    ).network.state_dict()
    network = strategy.apply(context).network
    assert network is not None
    for name, value in network.state_dict().items():
        assert torch.allclose(value, start[name], atol=1e-7) != name.startswith("heads."), name


def test_how_far_each_group_moved_is_reported(tmp_path: Path) -> None:
    fused = FullFinetune(lr_factor=1e-9).apply(make_context(transfer(), Source(), tmp_path))
    drift = fused.diagnostics["drift"]
    assert fused.network is not None
    assert fused.diagnostics["trainable_parameters"] == sum(value.numel() for value in fused.network.parameters())
    assert drift["head"] > 1e-3 and all(value < 1e-6 for group, value in drift.items() if group != "head")


def test_misfits_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`lr_factor` should be > 0"):
        FullFinetune(lr_factor=0.0)
    with pytest.raises(HyperparameterError, match="`head` should be one of reset, zero, .*Found `head = new`"):
        FullFinetune(head="new")
    with pytest.raises(HyperparameterError, match="`batch_norm` should be train, eval or reestimate"):
        FullFinetune(batch_norm="frozen")
    with pytest.raises(HyperparameterError, match=r"`min_coverage` should be in \[0, 1\]"):
        FullFinetune(min_coverage=2.0)


def test_a_kept_head_needs_equal_classes_and_the_source_must_exist(tmp_path: Path) -> None:
    other = replace(SIGN, classes=("no", "yes"))
    context = make_context(transfer(target=other), Source(), tmp_path)
    with pytest.raises(IncompatibleStrategyError, match="needs the same classes in source and target"):
        FullFinetune(head="keep").check(context.development, context.base_models.description)
    with pytest.raises(IncompatibleStrategyError, match="starts from base model 3. Found 1 base models"):
        FullFinetune(source=3).check(context.development, context.base_models.description)
    both = make_context(transfer(), SourceAndTarget(), tmp_path)
    with pytest.raises(
        IncompatibleStrategyError, match="Found base model 1 \\(target\\), which is trained on the target"
    ):
        FullFinetune(source=1).check(both.development, both.base_models.description)
    single = make_context(make_setting(make_development(SIGN)), Seeds(count=1), tmp_path)
    with pytest.raises(
        IncompatibleStrategyError, match="is for transfer problems. Found data=toy, a single_task problem"
    ):
        FullFinetune().check(single.development, single.base_models.description)
