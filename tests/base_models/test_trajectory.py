from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.base_models.pools import make_pool
from tests.toy import SIGN, make_development, make_setting
from transfuse.base_models import Seeds, Setting, Trajectory
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError


def steps(recipe: Trajectory, setting: Setting) -> list[int | None]:
    return [each.step for each in recipe.members(setting).recipes]


def test_members_lie_between_start_and_end() -> None:
    setting = make_setting(make_development(SIGN), epochs=6)  # of 3 steps
    assert steps(Trajectory(), setting) == [9, 12, 15, 18]
    assert steps(Trajectory(start=0.0), setting) == [3, 6, 9, 12, 15, 18]
    assert steps(Trajectory(start=0.0, every=4), setting) == [6, 18]
    assert steps(Trajectory(last=2), setting) == [15, 18]
    assert steps(Trajectory(last=9), setting) == [9, 12, 15, 18]
    counted = replace(setting, training=Training(epochs=None, steps=7, batch_size=16))
    assert steps(Trajectory(start=0.0), counted) == [1, 4, 7]


def test_the_last_member_is_what_seeds_train_and_keep_at_the_end(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN), epochs=3, keep="last")
    pool = make_pool(Trajectory(start=0.0), setting, tmp_path)
    seeds = make_pool(Seeds(count=1), setting, tmp_path)[0]
    assert len(pool) == 3
    assert all(torch.equal(seeds.state[name], pool[2].state[name]) for name in seeds.state)
    shorter = replace(setting, training=replace(setting.training, schedule="constant"))
    first = make_pool(Trajectory(start=0.0), shorter, tmp_path)[0]
    one = make_pool(Seeds(count=1), replace(shorter, training=replace(shorter.training, epochs=1)), tmp_path)[0]
    assert all(torch.equal(one.state[name], first.state[name]) for name in one.state)


def test_ranges() -> None:
    with pytest.raises(HyperparameterError, match="`every` should be >= 1"):
        Trajectory(every=0)
    with pytest.raises(HyperparameterError, match=r"`start` should be in \[0, 1\). Found `start = 1.0`"):
        Trajectory(start=1.0)
    with pytest.raises(HyperparameterError, match="`last` should be >= 1"):
        Trajectory(last=0)
