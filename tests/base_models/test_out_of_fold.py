from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.toy import CPU, SIGN, make_development
from transfuse.base_models import (
    Bagging,
    BaseModelRecipe,
    Checkpoints,
    Finetuned,
    Pool,
    Seeds,
    Setting,
    Snapshots,
    SourceAndTarget,
    Store,
    Trained,
)
from transfuse.base_models.model import training_seconds
from transfuse.base_models.out_of_fold import num_trainings, without
from transfuse.models.predict import predict
from transfuse.training.fit import Fit

FOLDS = torch.arange(48) % 3


def make_pool(
    recipe: BaseModelRecipe, setting: Setting, folder: Path, on_trained: Callable[[Trained], None] = lambda news: None
) -> Pool:
    return Pool(
        name=recipe.name,
        members=recipe.members(setting),
        development=setting.development,
        store=Store(folder),
        fit=Fit(CPU),
        on_trained=on_trained,
        lay_out=lambda rest: recipe.members(replace(setting, development=rest)),
    )


def test_an_example_is_predicted_by_members_trained_without_its_fold(setting: Setting, tmp_path: Path) -> None:
    found_MNC = make_pool(Seeds(count=2), setting, tmp_path).out_of_fold_logits(FOLDS)["sign"]
    assert found_MNC.shape == (2, 48, 2)
    for fold in range(3):
        rest = without(setting.development, fold == FOLDS)
        members = make_pool(Seeds(count=2), replace(setting, development=rest), tmp_path / str(fold))
        held = setting.development.train.select(fold == FOLDS)
        expected = torch.stack([predict(member.network(), held.inputs)["sign"] for member in members])
        torch.testing.assert_close(found_MNC[:, fold == FOLDS], expected)


def test_the_problem_without_a_fold() -> None:
    development = make_development(SIGN)
    rest = without(development, FOLDS == 1)
    assert set(rest.train.ids.tolist()) == set(range(48)) - set(range(1, 48, 3))
    assert torch.equal(rest.validation.ids, development.validation.ids)
    assert len({development.fingerprint, *(without(development, fold == FOLDS).fingerprint for fold in range(3))}) == 4


@pytest.mark.parametrize(
    "recipe",
    [Seeds(count=2), Finetuned(count=2), Bagging(count=2), Snapshots(cycles=2)],
    ids=lambda recipe: recipe.name,
)
def test_no_training_sees_its_fold(recipe: BaseModelRecipe, setting: Setting, tmp_path: Path) -> None:
    news: list[Trained] = []
    pool = make_pool(recipe, setting, tmp_path, news.append)
    pool.out_of_fold_logits(FOLDS)
    assert len(news) == 3 * num_trainings(pool.members)
    for item in news:
        fold = int(item.recipe.name[-1])
        assert item.recipe.name.endswith(f"-fold{fold}")
        seen = set(item.recipe.development.train.ids.tolist())
        assert seen and seen.isdisjoint(torch.arange(48)[fold == FOLDS].tolist())


def test_cost_counts_all_trainings_and_is_announced(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(Seeds(count=2), setting, tmp_path)
    with caplog.at_level(logging.INFO):
        pool.logits("validation")
        own, seconds = training_seconds(pool.used()), pool.seconds
        assert "Out-of-fold" not in caplog.text
        pool.out_of_fold_logits(FOLDS)
    assert "Out-of-fold predictions: 3 folds x 2 = 6 trainings" in caplog.text
    assert caplog.text.index("Out-of-fold predictions") < caplog.text.index("seeds-0-fold0")
    used = pool.used()
    assert [member.description.name for member in used] == [
        "seeds-0", "seeds-1", *(f"seeds-{member}-fold{fold}" for fold in range(3) for member in range(2))
    ]  # fmt: skip
    folds_alone = sum(member.seconds for member in used[2:])
    assert folds_alone > 0
    assert training_seconds(used) == pytest.approx(own + folds_alone)
    assert pool.seconds >= seconds + folds_alone


def test_the_pools_behind_the_predictions(setting: Setting, tmp_path: Path) -> None:
    pool = make_pool(Seeds(count=2), setting, tmp_path)
    pools = pool.fold_pools(FOLDS)
    used, seconds = pool.used(), pool.seconds
    names = [f"seeds-{member}-fold{fold}" for fold in range(3) for member in range(2)]
    assert [member.description.name for each in pools for member in each] == names
    assert [member.description.name for member in used] == names
    assert seconds >= training_seconds(used) > 0
    found_MNC = pool.out_of_fold_logits(FOLDS)["sign"]
    assert pool.seconds == seconds  # they are the same
    inputs = pool.development.train.inputs
    for fold, each in enumerate(pools):
        expected = torch.stack([member.network()(inputs)["sign"] for member in each])[:, fold == FOLDS]
        torch.testing.assert_close(found_MNC[:, fold == FOLDS], expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_trained_twice(setting: Setting, tmp_path: Path) -> None:
    news: list[Trained] = []
    first = make_pool(Seeds(count=2), setting, tmp_path)
    expected = first.out_of_fold_logits(FOLDS)
    seconds = first.seconds
    assert torch.equal(first.out_of_fold_logits(FOLDS)["sign"], expected["sign"])
    assert first.seconds == seconds
    second = make_pool(Seeds(count=2), setting, tmp_path, news.append)
    assert torch.equal(second.out_of_fold_logits(FOLDS)["sign"], expected["sign"])
    assert news == []
    assert training_seconds(second.used()) == pytest.approx(training_seconds(first.used()))


def test_a_source_model_stays_as_it_is(setting: Setting, tmp_path: Path) -> None:
    source = make_development(SIGN)
    source = replace(source, train=replace(source.train, ids=source.train.ids + 1000))
    transfer = replace(setting, development=replace(setting.development, source=source))
    news: list[Trained] = []
    pool = make_pool(SourceAndTarget(), transfer, tmp_path, news.append)
    pool.logits("validation")
    source_MNC, found_MNC = pool.logits("train")["sign"][0], pool.out_of_fold_logits(FOLDS)["sign"][0]
    torch.testing.assert_close(found_MNC, source_MNC)
    names = ["source", "target", "target-fold0", "target-fold1", "target-fold2"]
    assert [item.recipe.name for item in news] == names
    assert [member.description.name for member in pool.used()] == names


def test_which_pools_can_be_trained_again(setting: Setting, tmp_path: Path) -> None:
    pool = make_pool(Seeds(count=1), setting, tmp_path)
    assert pool.description.retrainable
    save_file(pool[0].state, tmp_path / "given.safetensors")
    given = make_pool(Checkpoints(paths=(str(tmp_path / "given.safetensors"),)), setting, tmp_path)
    assert not given.description.retrainable
    assert not replace(pool, lay_out=None).description.retrainable
