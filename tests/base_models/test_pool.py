from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.base_models.pools import make_pool
from transfuse.base_models import (
    Checkpoints,
    Finetuned,
    PerTask,
    Seeds,
    Setting,
    SourceAndTarget,
    Store,
    Trained,
)
from transfuse.base_models.model import BaseModel
from transfuse.models.predict import predict
from transfuse.types import DataError, IncompatibleStrategyError, StateDictError, StateDictMismatch


def test_members_are_trained_once_and_read_afterwards(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    news: list[Trained] = []
    first = make_pool(Seeds(count=2), setting, tmp_path, news)
    with caplog.at_level(logging.INFO):
        states = [member.state for member in first]
    assert [member.description.name for item in news for member in item.members] == ["seeds-0", "seeds-1"]
    assert "base models: 2 trained, 0 reused" in caplog.text and "seeds-1: accuracy" in caplog.text
    second = make_pool(Seeds(count=3), setting, tmp_path, news)
    again = list(second)
    assert [member.trained_here for member in again] == [False, False, True]
    assert len(news) == 3
    assert all(torch.equal(states[0][name], again[0].state[name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_member_is_trained_only_when_it_is_asked_for(setting: Setting, tmp_path: Path) -> None:
    news: list[Trained] = []
    pool = make_pool(Seeds(count=5), setting, tmp_path, news)
    assert news == [] and len(pool) == 5
    assert pool[3].description.name == "seeds-3"
    assert len(news) == 1 and len(pool.used()) == 1


def test_two_trainings_of_one_recipe_are_bit_identical(setting: Setting, tmp_path: Path) -> None:
    one = make_pool(Seeds(count=1), setting, tmp_path / "a")[0].state
    two = make_pool(Seeds(count=1), setting, tmp_path / "b")[0].state
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_refresh_trains_anew(setting: Setting, tmp_path: Path) -> None:
    make_pool(Seeds(count=1), setting, tmp_path)[0]
    assert make_pool(Seeds(count=1, refresh=True), setting, tmp_path)[0].trained_here


def test_a_damaged_member_is_trained_again(setting: Setting, tmp_path: Path) -> None:
    member = make_pool(Seeds(count=1), setting, tmp_path)[0]
    path = tmp_path / member.description.key / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    again = make_pool(Seeds(count=1), setting, tmp_path)[0]
    assert again.trained_here
    assert all(torch.equal(member.state[name], again.state[name]) for name in member.state)


def test_logits_are_those_of_the_networks_and_are_stored(setting: Setting, tmp_path: Path) -> None:
    pool = make_pool(Seeds(count=2), setting, tmp_path)
    logits_MNC = pool.logits("validation")["sign"]
    validation = setting.development.validation
    assert logits_MNC.shape == (2, 24, 2) and logits_MNC.dtype == torch.float32
    assert torch.equal(logits_MNC[1], predict(pool[1].network(), validation.inputs)["sign"])
    key, store = pool[1].description.key, Store(tmp_path)
    entry = store.get(key)
    assert entry is not None
    stored = store.get_predictions(
        key, setting.development.fingerprint, "validation", weights=entry.record["sha256"], ids=validation.ids
    )
    assert stored is not None and torch.equal(stored["sign"], logits_MNC[1])


def test_statistics_are_measured_once_a_purpose(setting: Setting, tmp_path: Path) -> None:
    measured: list[str] = []

    def measure(member: BaseModel) -> dict[str, torch.Tensor]:
        measured.append(member.description.name)
        return {name: value.double().square() for name, value in member.state.items()}

    pool = make_pool(Seeds(count=2), setting, tmp_path)
    found = pool.statistics("squares", measure)
    assert measured == ["seeds-0", "seeds-1"]
    for member, statistics in zip(pool, found, strict=True):
        assert all(torch.equal(statistics[name], value.double().square()) for name, value in member.state.items())
    again = make_pool(Seeds(count=3), setting, tmp_path).statistics("squares", measure)
    assert measured == ["seeds-0", "seeds-1", "seeds-2"]
    assert all(torch.equal(again[1][name], value) for name, value in found[1].items())
    pool.statistics("squares of other examples", measure)
    assert len(measured) == 5


def test_statistics_of_a_member_that_was_trained_anew_are_measured_anew(setting: Setting, tmp_path: Path) -> None:
    def measure(member: BaseModel) -> dict[str, torch.Tensor]:
        return {"calls": torch.ones(1)}

    make_pool(Seeds(count=1), setting, tmp_path).statistics("one", measure)
    pool = make_pool(Seeds(count=1, refresh=True), setting, tmp_path)
    assert torch.equal(pool.statistics("one", lambda member: {"calls": torch.zeros(1)})[0]["calls"], torch.zeros(1))


def test_a_network_owns_its_weights(setting: Setting, tmp_path: Path) -> None:
    member = make_pool(Seeds(count=1), setting, tmp_path)[0]
    network = member.network()
    before = {name: tensor.clone() for name, tensor in member.state.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(member.state[name], before[name]) for name in before)
    assert not network.training


def test_finetuned_members_start_from_the_base(setting: Setting, tmp_path: Path) -> None:
    pool = make_pool(Finetuned(count=2), setting, tmp_path)
    assert pool.base is not None and pool.description.has_base
    started = pool._start(pool.members.recipes[0]).state_dict()
    assert all(torch.equal(started[name], pool.base.state[name]) for name in started)
    assert any(not torch.equal(pool[0].state[name], pool.base.state[name]) for name in started)


def test_per_task_members_share_the_initial_backbone_alone(multi_task: Setting, tmp_path: Path) -> None:
    pool = make_pool(PerTask(), multi_task, tmp_path)
    starts = [pool._start(recipe).state_dict() for recipe in pool.members.recipes]
    backbone = [name for name in starts[0] if name.startswith("backbone.")]
    assert backbone and all(torch.equal(starts[0][name], starts[1][name]) for name in backbone)
    assert {name.split(".")[1] for name in starts[0] if name.startswith("heads.")} == {"sign"}
    with pytest.raises(IncompatibleStrategyError, match="Found per_task-sign without value"):
        pool.logits("validation")


def test_source_and_target_predict_the_target(transfer: Setting, tmp_path: Path) -> None:
    pool = make_pool(SourceAndTarget(), transfer, tmp_path)
    assert pool.logits("train")["sign"].shape == (2, 48, 2)
    assert [member.description.trained_on for member in pool] == ["source", "target"]


def test_checkpoints_are_members_of_zero_cost(setting: Setting, tmp_path: Path) -> None:
    network = make_pool(Seeds(count=1), setting, tmp_path)[0].network()
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    paths = (str(tmp_path / "mine.safetensors"), str(tmp_path / "mine.pt"))
    pool = make_pool(Checkpoints(paths=paths), setting, tmp_path)
    inputs = setting.development.validation.inputs
    assert torch.equal(pool.logits("validation")["sign"][1], predict(network, inputs)["sign"])
    assert pool[0].seconds == 0 and pool[0].description.key == pool[1].description.key
    assert "accuracy" in pool[0].validation["sign"]


def test_checkpoints_that_do_not_fit_are_told_before_anything_else(setting: Setting, tmp_path: Path) -> None:
    network = setting.recipe("x", seed=0).build()
    state = dict(network.state_dict())
    first = next(iter(state))
    broken = {
        "missing": {key: value for key, value in state.items() if key != first},
        "extra": {**state, "unknown.weight": torch.ones(1)},
        "misshapen": {**state, first: torch.ones(3, 3)},
        "integer": {**state, first: torch.ones_like(state[first], dtype=torch.int64)},
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(content, path)
        with pytest.raises(StateDictMismatch) as error:
            Checkpoints(paths=(str(path),)).members(setting)
        assert ("unknown.weight" if name == "extra" else first) in str(error.value) and name in str(error.value)
    torch.save(network, tmp_path / "pickled.pt")
    with pytest.raises(StateDictError, match="weights"):
        Checkpoints(paths=(str(tmp_path / "pickled.pt"),)).members(setting)
    with pytest.raises(DataError, match=r"nowhere\.pt, which is no file"):
        Checkpoints(paths=(str(tmp_path / "nowhere.pt"),)).members(setting)


def test_predictions_on_a_changed_test_split_are_made_anew(setting: Setting, tmp_path: Path) -> None:
    """The same ids and another content: what is stored of the old content does not count."""
    pool = make_pool(Seeds(count=1), setting, tmp_path)
    test = setting.development.validation
    old = pool.test_logits(test)["sign"]
    changed = replace(test, inputs=-test.inputs)
    assert torch.equal(pool.test_logits(changed)["sign"][0], predict(pool[0].network(), -test.inputs)["sign"])
    assert torch.equal(pool.test_logits(test)["sign"], old)


def test_given_weights_are_scored_on_the_runs_own_data(setting: Setting, tmp_path: Path) -> None:
    save_file(setting.recipe("x", seed=0).build().state_dict(), tmp_path / "mine.safetensors")
    recipe = Checkpoints(paths=(str(tmp_path / "mine.safetensors"),))
    first = make_pool(recipe, setting, tmp_path)[0]
    validation = setting.development.validation
    flipped = replace(validation, targets={"sign": 1 - validation.targets["sign"]})
    other = replace(setting, development=replace(setting.development, validation=flipped, fingerprint="other"))
    second = make_pool(recipe, other, tmp_path)[0]
    assert first.description.key == second.description.key
    assert first.validation["sign"]["accuracy"] + second.validation["sign"]["accuracy"] == pytest.approx(1.0)


def test_a_shared_start_counts_whether_or_not_it_was_trained_now(setting: Setting, tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        pool = make_pool(Finetuned(count=2), setting, tmp_path)
        list(pool)
        names.append(sorted(member.description.name for member in pool.used()))
    assert names[0] == names[1] == ["finetuned-0", "finetuned-1", "finetuned-start"]


def test_a_fresh_initialization_is_no_base_model_that_was_paid_for(multi_task: Setting, tmp_path: Path) -> None:
    pool = make_pool(PerTask(), multi_task, tmp_path)
    list(pool)
    assert [member.description.name for member in pool.used()] == ["per_task-sign", "per_task-value"]
