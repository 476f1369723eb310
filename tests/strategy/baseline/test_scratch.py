from __future__ import annotations

from pathlib import Path

import torch

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Source
from transfuse.strategy.baseline import Scratch


def setting_of(seed: int = 0):  # type: ignore[no-untyped-def]
    return make_setting(make_development(SIGN, source=make_development(SIGN)), seed=seed)


def test_no_base_model_is_trained(tmp_path: Path) -> None:
    context = make_context(setting_of(), Source(), tmp_path)
    fused = Scratch().apply(context)
    assert context.base_models.used() == ()
    assert fused.steps == 6 and len(fused.history) == 2


def test_an_arm_that_pauses_gives_the_weights_of_one_that_does_not(tmp_path: Path) -> None:
    whole = Scratch().apply(make_context(setting_of(), Source(), tmp_path)).network
    arm = Scratch().start(make_context(setting_of(), Source(), tmp_path))
    assert arm.total_steps == 6
    for step in (1, 4):
        assert "validation/loss" in arm.advance(step)
    arm.advance(arm.total_steps)
    paused = arm.finish().network
    assert whole is not None and paused is not None
    assert all(torch.equal(value, paused.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_seed_decides(tmp_path: Path) -> None:
    one, two = (Scratch().apply(make_context(setting_of(seed), Source(), tmp_path)).network for seed in (0, 1))
    assert one is not None and two is not None
    assert any(not torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
