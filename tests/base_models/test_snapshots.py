from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.base_models.pools import make_pool, sgd_states
from tests.toy import SIGN, make_development, make_setting
from transfuse.base_models import Setting, Snapshots
from transfuse.types import HyperparameterError

STEPS = 6  # of a cycle: two epochs of three batches


def test_members_are_the_weights_at_the_ends_of_the_papers_cycles(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN), optimizer="sgd", epochs=2)
    recipe = Snapshots(cycles=3, epochs_per_cycle=2, max_lr=0.3)
    first = recipe.members(setting).recipes[0]

    def lr(step: int) -> float:
        # alpha(t) = alpha_0 / 2 (cos(pi mod(t, T/M) / (T/M)) + 1)
        return 0.3 / 2 * (math.cos(math.pi * (step % STEPS) / STEPS) + 1)

    states = list(sgd_states(setting, first.build(), seed=first.seed, steps=3 * STEPS, lr=lr))
    for index, member in enumerate(make_pool(recipe, setting, tmp_path)):
        torch.testing.assert_close(dict(member.state), states[(index + 1) * STEPS - 1], rtol=1e-5, atol=1e-6)


def test_the_training_budget_is_shared_by_the_cycles() -> None:
    setting = make_setting(make_development(SIGN), epochs=5, warmup=0.5, patience=1)
    recipes = Snapshots(cycles=4).members(setting).recipes
    assert [recipe.step for recipe in recipes] == [3, 6, 9, 12]  # 15 steps, in four equal parts
    training = recipes[0].training
    assert training is not None
    assert (training.epochs, training.steps, training.cycles, training.schedule) == (None, 12, 4, "cosine")
    assert (training.lr, training.warmup, training.patience) == (setting.training.lr, 0.0, None)
    assert len({recipe.training_key for recipe in recipes}) == 1
    assert len({recipe.key for recipe in recipes}) == 4


def test_keep_gives_the_last_ones(setting: Setting) -> None:
    every = Snapshots(cycles=5, epochs_per_cycle=1).members(setting).recipes
    last = Snapshots(cycles=5, epochs_per_cycle=1, keep=2).members(setting).recipes
    assert [recipe.key for recipe in last] == [recipe.key for recipe in every[3:]]
    assert [recipe.name for recipe in last] == ["snapshots-3", "snapshots-4"]


def test_ranges(setting: Setting) -> None:
    with pytest.raises(HyperparameterError, match="`cycles` should be >= 1. Found `cycles = 0`"):
        Snapshots(cycles=0)
    with pytest.raises(HyperparameterError, match="`epochs_per_cycle` should be >= 1"):
        Snapshots(epochs_per_cycle=0)
    with pytest.raises(HyperparameterError, match="`max_lr` should be > 0"):
        Snapshots(max_lr=0.0)
    for keep in (0, 4):
        with pytest.raises(HyperparameterError, match=rf"`keep` should be in \[1, 3\]. Found `keep = {keep}`"):
            Snapshots(cycles=3, keep=keep)
    with pytest.raises(HyperparameterError, match=r"`cycles` should be at most the number of optimizer steps \(6\)"):
        Snapshots(cycles=7).members(setting)
