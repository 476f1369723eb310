"""Pools whose members come from one training: trained once, written together, paid once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.base_models.pools import make_pool
from transfuse.base_models import FGE, Seeds, Setting, Snapshots, Store, Trained, Trajectory
from transfuse.base_models.model import training_seconds
from transfuse.base_models.store import Entry
from transfuse.training.fit import Fitting
from transfuse.training.settings import Devices

RECIPE = Snapshots(cycles=3, epochs_per_cycle=1)


def test_the_first_member_brings_all_and_they_are_read_afterwards(setting: Setting, tmp_path: Path) -> None:
    news: list[Trained] = []
    pool = make_pool(RECIPE, setting, tmp_path, news)
    states = [pool[1].state, *(member.state for member in pool)][1:]
    (trained,) = news
    assert [member.description.name for member in trained.members] == ["snapshots-0", "snapshots-1", "snapshots-2"]
    assert trained.recipe.name == "snapshots-0 to snapshots-2" and trained.recipe.step is None
    assert trained.result.steps == 9 and trained.result.epochs == 3
    assert all(member.trained_here for member in pool)
    again = list(make_pool(RECIPE, setting, tmp_path, news))
    assert len(news) == 1 and not any(member.trained_here for member in again)
    for state, member in zip(states, again, strict=True):
        assert all(torch.equal(state[name], member.state[name]) for name in state)


def test_members_own_their_weights(setting: Setting, tmp_path: Path) -> None:
    states = [member.state for member in make_pool(RECIPE, setting, tmp_path)]
    for name in states[0]:
        assert len({state[name].data_ptr() for state in states}) == 3
        assert not torch.equal(states[0][name], states[1][name])


def test_one_training_is_paid_once(setting: Setting, tmp_path: Path) -> None:
    for _ in range(2):
        news: list[Trained] = []
        pool = make_pool(FGE(cycles=3), setting, tmp_path, news)
        list(pool)
        used = pool.used()
        assert len(used) == 4 and pool.base is not None
        assert training_seconds(used) == pool[0].seconds + pool.base.seconds
        if news:
            assert training_seconds(used) == sum(item.result.seconds for item in news)
    seeds = make_pool(Seeds(count=2), setting, tmp_path)
    list(seeds)
    assert training_seconds(seeds.used()) == sum(member.seconds for member in seeds)


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_a_half_written_pool_is_trained_again(setting: Setting, tmp_path: Path, damage: str) -> None:
    first = list(make_pool(RECIPE, setting, tmp_path))
    folder = tmp_path / first[2].description.key
    if damage == "missing":
        shutil.rmtree(folder)
    else:
        (folder / "record.json").write_text("{")
    news: list[Trained] = []
    again = list(make_pool(RECIPE, setting, tmp_path, news))
    assert len(news) == 1 and all(member.trained_here for member in again)
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_a_training_that_ends_early_leaves_no_key(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Fitting.snapshot

    def stop_after_the_first(self: Fitting) -> nn.Module:
        if self.step > 3:
            raise KeyboardInterrupt
        return snapshot(self)

    pool = make_pool(RECIPE, setting, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "snapshot", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            pool[0]
    assert [path.name for path in tmp_path.iterdir()] == ["locks"] and pool.used() == ()
    assert pool[0].trained_here


def test_a_pool_that_was_trained_for_fewer_members_is_trained_again(setting: Setting, tmp_path: Path) -> None:
    last = list(make_pool(Snapshots(cycles=3, epochs_per_cycle=1, keep=1), setting, tmp_path))
    news: list[Trained] = []
    every = list(make_pool(RECIPE, setting, tmp_path, news))
    assert len(news) == 1 and every[2].description.key == last[0].description.key
    assert all(torch.equal(last[0].state[name], every[2].state[name]) for name in last[0].state)


def test_refresh_trains_once(setting: Setting, tmp_path: Path) -> None:
    list(make_pool(RECIPE, setting, tmp_path))
    news: list[Trained] = []
    recipe = Snapshots(cycles=3, epochs_per_cycle=1, refresh=True)
    assert all(member.trained_here for member in make_pool(recipe, setting, tmp_path, news)) and len(news) == 1


def test_records_and_predictions_are_each_members_own(setting: Setting, tmp_path: Path) -> None:
    pool = make_pool(Trajectory(start=0.0), setting, tmp_path)
    logits_MNC = pool.logits("validation")["sign"]
    assert logits_MNC.shape[0] == 2 and not torch.equal(logits_MNC[0], logits_MNC[1])
    for index, member in enumerate(pool):
        record = json.loads((tmp_path / member.description.key / "record.json").read_text())
        assert record["name"] == f"trajectory-{index}" and record["recipe"]["step"] == 3 * (index + 1)
        labels_N = setting.development.validation.targets["sign"]
        accuracy = (logits_MNC[index].argmax(dim=1) == labels_N).double().mean().item()
        assert record["validation"]["sign"]["accuracy"] == pytest.approx(accuracy)


def test_two_processes_hand_out_the_same_weights(setting: Setting, tmp_path: Path) -> None:
    recipe = Snapshots(cycles=2, epochs_per_cycle=1)
    one = make_pool(recipe, setting, tmp_path / "one")
    two = make_pool(recipe, setting, tmp_path / "two", devices=Devices(accelerator="cpu", devices=2, progress=False))
    for member, other in zip(one, two, strict=True):
        torch.testing.assert_close(dict(member.state), dict(other.state), rtol=0, atol=1e-5)


def test_nothing_is_written_unless_all_can_be(tmp_path: Path) -> None:
    good = Entry(state={"weight": torch.ones(2)}, record={"seconds": 0.0, "validation": {}})
    bad = Entry(state={"weight": torch.ones(2)}, record={"not json": object()})
    store = Store(tmp_path)
    with pytest.raises(TypeError):
        store.put_all({"a": good, "b": bad})
    assert list(tmp_path.iterdir()) == []
    assert set(store.put_all({"a": good, "b": good})) == {"a", "b"}
    assert store.get("a") is not None and store.get("b") is not None
