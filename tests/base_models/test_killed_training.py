"""Base models whose training was killed: the next run goes on, and stores what it would have stored."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.base_models.pools import make_pool
from tests.toy import CPU, SIGN, make_development, make_setting
from transfuse.base_models import BaseModelRecipe, Pool, Seeds, Setting, Snapshots, Trained
from transfuse.base_models.train import checkpoint_key
from transfuse.training.fit import Fit
from transfuse.training.module import TrainingModule

ALONE = Seeds(count=2)
TOGETHER = Seeds(count=2, train="together")
CYCLES = Snapshots(cycles=3, epochs_per_cycle=2)  # six steps a member


class KilledError(Exception):
    pass


@pytest.fixture
def setting() -> Setting:
    return make_setting(make_development(SIGN), epochs=6)


def pool_of(recipe: BaseModelRecipe, setting: Setting, folder: Path, news: list[Trained] | None = None) -> Pool:
    pool = make_pool(recipe, setting, folder, news)
    return replace(pool, fit=Fit(replace(CPU, checkpoint_every=0.0), checkpoints=folder / "training"))


def kill(pool: Pool, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step_with = TrainingModule.step_with

    def dies(module: TrainingModule, *arguments: Any) -> None:
        if module.progress.step == step:
            raise KilledError
        step_with(module, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "step_with", dies)
        with pytest.raises(KilledError):
            list(pool)


@pytest.mark.parametrize(
    ("recipe", "files", "going_on"),
    [(ALONE, 1, ["step 9"]), (TOGETHER, 1, ["step 9"]), (CYCLES, 2, ["step 6", "step 9"])],
    ids=["alone", "together", "cycles"],
)
def test_the_members_are_those_of_a_training_that_was_left_alone(
    recipe: BaseModelRecipe,
    files: int,
    going_on: list[str],
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = list(make_pool(recipe, setting, tmp_path / "unbroken"))
    kill(pool_of(recipe, setting, tmp_path), 11, monkeypatch)
    written = list((tmp_path / "training").iterdir())
    assert len(written) == files
    news: list[Trained] = []
    with caplog.at_level(logging.INFO, logger="transfuse"):
        found = list(pool_of(recipe, setting, tmp_path, news))
    assert [text.rpartition("checkpoint of ")[2][:-1] for text in caplog.messages if "goes on" in text] == going_on
    for one, other in zip(found, expected, strict=True):
        assert one.description.key == other.description.key
        assert all(torch.equal(one.state[name], value) for name, value in other.state.items())
    assert all(each.result.steps == 18 for each in news)
    assert list((tmp_path / "training").iterdir()) == []


def test_a_training_has_a_key_of_its_own(setting: Setting) -> None:
    def key(recipe: BaseModelRecipe, seed: int = 0, count: int | None = None) -> str:
        return checkpoint_key(recipe.members(replace(setting, seed=seed)).recipes[:count])

    keys = [key(ALONE, count=1), key(ALONE, 1, 1), key(TOGETHER), key(TOGETHER, 1), key(TOGETHER, count=1), key(CYCLES)]
    assert len(set(keys)) == len(keys)
    assert key(CYCLES) == key(CYCLES, count=1)  # steps along one training
