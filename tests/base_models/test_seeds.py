from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.base_models.pools import make_pool
from tests.toy import SIGN, make_development, make_setting
from transfuse.base_models import Seeds, Setting, Trained
from transfuse.base_models.model import training_seconds
from transfuse.types import HyperparameterError

TOGETHER = Seeds(count=3, train="together")


def test_members_trained_together_are_those_of_one_by_one(tmp_path: Path) -> None:
    setting = make_setting(make_development(SIGN), optimizer="sgd", epochs=4)
    news: list[Trained] = []
    shared, single = make_pool(TOGETHER, setting, tmp_path, news), make_pool(Seeds(count=3), setting, tmp_path)
    for member, other in zip(shared, single, strict=True):
        torch.testing.assert_close(dict(member.state), dict(other.state), rtol=0, atol=5e-4)
        assert member.description.key != other.description.key  # equal up to rounding is not the same
        assert member.description.name == other.description.name
    (trained,) = news
    assert trained.recipe.name == "seeds-0 to seeds-2" and len(trained.members) == 3
    torch.testing.assert_close(
        shared.logits("validation")["sign"], single.logits("validation")["sign"], rtol=0, atol=5e-3
    )


def test_the_seconds_of_one_step_are_shared_out(setting: Setting, tmp_path: Path) -> None:
    news: list[Trained] = []
    pool = make_pool(TOGETHER, setting, tmp_path, news)
    list(pool)
    assert training_seconds(pool.used()) == pytest.approx(news[0].result.seconds)
    assert pool[0].seconds == pytest.approx(news[0].result.seconds / 3)


def test_a_larger_pool_trains_the_new_members_alone(setting: Setting, tmp_path: Path) -> None:
    first = list(make_pool(Seeds(count=2, train="together"), setting, tmp_path))
    news: list[Trained] = []
    pool = make_pool(Seeds(count=5, train="together"), setting, tmp_path, news)
    assert [member.trained_here for member in pool] == [False, False, True, True, True]
    assert [member.description.name for member in pool.used()] == [f"seeds-{index}" for index in range(5)]
    assert len(news) == 1 and news[0].recipe.name == "seeds-2 to seeds-4"
    assert [member.description.key for member in first] == [member.description.key for member in list(pool)[:2]]
    assert training_seconds(pool.used()) == pytest.approx(sum(member.seconds for member in pool))


def test_what_cannot_be_trained_together_is_told_before_anything_else(setting: Setting) -> None:
    with pytest.raises(HyperparameterError, match="`train` should be one_by_one or together. Found `train = both`"):
        Seeds(train="both")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="trains on one device. Found 2 devices"):
        TOGETHER.members(replace(setting, world_size=2))
    with pytest.raises(HyperparameterError, match="trains in float32. Found `trainer.precision = bf16-mixed`"):
        TOGETHER.members(replace(setting, precision="bf16-mixed"))
    with pytest.raises(HyperparameterError, match="Found `training.patience = 2`"):
        TOGETHER.members(replace(setting, training=replace(setting.training, patience=2)))

    def make(**given: object) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))

    with pytest.raises(HyperparameterError, match="BatchNorm's running statistics"):
        TOGETHER.members(replace(setting, architecture=replace(setting.architecture, make=make)))
