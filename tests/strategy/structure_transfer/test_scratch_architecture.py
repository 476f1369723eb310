from __future__ import annotations

from pathlib import Path

import torch

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Source
from transfuse.strategy.baseline import Scratch
from transfuse.strategy.parameter_transfer import FullFinetune
from transfuse.strategy.structure_transfer import ScratchArchitecture


def test_it_equals_scratch_bit_for_bit(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN, source=make_development(SIGN)))
    control = ScratchArchitecture().apply(make_context(setting, Source(), tmp_path)).network
    scratch = Scratch().apply(make_context(setting, Source(), tmp_path)).network
    assert control is not None and scratch is not None
    assert control.state_dict().keys() == scratch.state_dict().keys()
    assert all(torch.equal(value, scratch.state_dict()[name]) for name, value in control.state_dict().items())


def test_no_weight_of_the_source_is_carried_over(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN, source=make_development(SIGN)))
    context = make_context(setting, Source(), tmp_path)
    grown = ScratchArchitecture().grow(context.base_models[0], context.development, context.generator("init"))
    source = context.base_models[0].state
    weights = {name: value for name, value in grown.network.state_dict().items() if name.endswith("weight")}
    assert weights and not any(torch.equal(value, source[name]) for name, value in weights.items())
    assert grown.report["carried_weights"] == 0


def test_the_training_is_a_choice_of_its_own(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN, source=make_development(SIGN)))
    still = ScratchArchitecture(then=FullFinetune(lr_factor=1e-12, head_lr_factor=1e-12))
    context = make_context(setting, Source(), tmp_path)
    network = still.apply(context).network
    fresh = still.grow(context.base_models[0], context.development, context.generator("init")).network
    assert network is not None
    assert all(
        torch.allclose(value, fresh.state_dict()[name], atol=1e-8) for name, value in network.state_dict().items()
    )
