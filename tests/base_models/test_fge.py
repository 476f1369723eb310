from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.base_models.pools import make_pool, sgd_states
from tests.toy import SIGN, make_development, make_setting
from transfuse.base_models import FGE, Seeds, Setting
from transfuse.types import DataError, HyperparameterError

STEPS = 6  # of a cycle: two epochs of three batches


def test_members_are_the_weights_at_the_low_ends_of_triangular_cycles(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN), optimizer="sgd")
    recipe = FGE(cycles=2, lr_high=0.2, lr_low=0.02)
    pool = make_pool(recipe, setting, tmp_path)
    assert pool.base is not None and pool.description.has_base
    rates = [0.02, 0.08, 0.14, 0.2, 0.14, 0.08]  # up and down between lr_low and lr_high in six steps
    seed = pool.members.recipes[0].seed
    states = list(
        sgd_states(setting, pool.base.network(), seed=seed, steps=2 * STEPS, lr=lambda step: rates[step % STEPS])
    )
    for index, member in enumerate(pool):
        torch.testing.assert_close(dict(member.state), states[(index + 1) * STEPS - 1], rtol=1e-5, atol=1e-6)


def test_the_start_is_the_first_member_of_seeds(setting: Setting, tmp_path: Path) -> None:
    members = FGE().members(setting)
    assert members.base is not None
    assert members.base.key == Seeds(count=1).members(setting).recipes[0].key
    assert len(members.recipes) == 4
    assert {recipe.start.key for recipe in members.recipes if recipe.start} == {members.base.key}
    assert members.recipes[0].seed != members.base.seed  # another batch order than the start's
    training = members.recipes[0].training
    assert training is not None
    assert (training.lr, training.lr_low) == (setting.training.lr, setting.training.lr / 100)
    make_pool(Seeds(count=1), setting, tmp_path)[0]
    pool = make_pool(FGE(cycles=1), setting, tmp_path)
    assert pool[0].trained_here and pool.base is not None and not pool.base.trained_here


def test_the_start_may_be_a_file(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    network = setting.recipe("x", seed=7).build()
    save_file(network.state_dict(), path)
    pool = make_pool(FGE(start=str(path), cycles=2), setting, tmp_path / "store")
    assert pool.base is not None
    assert all(
        torch.equal(value, pool.base.state[name])
        for name, value in setting.recipe("x", seed=7).build().state_dict().items()
    )
    other = make_pool(FGE(cycles=2), setting, tmp_path / "store")
    assert {recipe.key for recipe in pool.members.recipes}.isdisjoint(recipe.key for recipe in other.members.recipes)
    with pytest.raises(DataError, match=r"`base_models\.start` names .*nowhere\.pt, which is no file"):
        FGE(start=str(tmp_path / "nowhere.pt")).members(setting)


def test_ranges(setting: Setting) -> None:
    with pytest.raises(HyperparameterError, match="`cycles` should be >= 1"):
        FGE(cycles=0)
    with pytest.raises(HyperparameterError, match="`epochs_per_cycle` should be >= 1"):
        FGE(epochs_per_cycle=0)
    with pytest.raises(HyperparameterError, match="`lr_high` should be > 0"):
        FGE(lr_high=0.0)
    with pytest.raises(HyperparameterError, match="`lr_low` should be >= 0"):
        FGE(lr_low=-0.1)
    with pytest.raises(HyperparameterError, match=r"`base_models.lr_low` should be at most .* \(0.01\)"):
        FGE(lr_high=0.01, lr_low=0.1).members(setting)
