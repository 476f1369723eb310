from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import Bagging, Setting
from transfuse.base_models.bagging import draw
from transfuse.data.digits import Digits
from transfuse.data.splits import fingerprint
from transfuse.types import HyperparameterError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_full_bootstrap_sample_holds_the_expected_share_of_examples() -> None:
    sample = draw(20_000, fraction=1.0, replacement=True, strata_N=None, generator=stream())
    assert len(sample) == 20_000
    # E = 1 - (1 - 1/N)^N -> 1 - 1/e, standard deviation about 0.0022
    assert len(sample.unique()) / 20_000 == pytest.approx(0.6321, abs=0.01)


def test_strata_keep_their_shares_and_none_is_lost() -> None:
    strata = torch.tensor([0] * 90 + [1] * 9 + [2])
    for replacement in (True, False):
        sample = draw(100, fraction=0.5, replacement=replacement, strata_N=strata, generator=stream())
        assert Counter(strata[sample].tolist()) == {0: 45, 1: 5, 2: 1}
        assert torch.equal(sample, sample.sort().values)
        assert (len(sample.unique()) == len(sample)) == (not replacement)
    plain = [draw(100, fraction=0.5, replacement=True, strata_N=None, generator=stream(seed)) for seed in range(20)]
    assert len({int((strata[sample] == 1).sum()) for sample in plain}) > 1


def test_members_differ_in_their_examples_alone(setting: Setting) -> None:
    whole = setting.development
    recipes = Bagging(count=3).members(setting).recipes
    for recipe in recipes:
        data = recipe.development
        assert len(data.train) == len(whole.train) and set(data.train.ids.tolist()) < set(whole.train.ids.tolist())
        assert data.validation is whole.validation and data.tasks == whole.tasks
        assert data.fingerprint == fingerprint(whole.tasks, data.train, whole.validation) != whole.fingerprint
        classes = [torch.bincount(split.targets["sign"]).tolist() for split in (data.train, whole.train)]
        assert classes[0] == classes[1]
        rows = {int(number): row for number, row in zip(whole.train.ids, whole.train.inputs, strict=True)}
        assert all(torch.equal(rows[int(i)], row) for i, row in zip(data.train.ids, data.train.inputs, strict=True))
    assert len({recipe.development.fingerprint for recipe in recipes}) == len({recipe.seed for recipe in recipes}) == 3


def test_the_key_follows_from_the_sample(setting: Setting) -> None:
    def keys(pool: Bagging, seed: int = 0) -> list[str]:
        return [recipe.key for recipe in pool.members(replace(setting, seed=seed)).recipes]

    assert keys(Bagging(count=5))[:3] == keys(Bagging(count=3))
    pools = [Bagging(count=2), Bagging(count=2, fraction=0.5), Bagging(count=2, fraction=0.5, replacement=False)]
    pools.append(Bagging(count=2, stratified=False))
    assert len({key for pool in pools for key in keys(pool)} | set(keys(pools[0], seed=1))) == 10


def test_scaling_stays_that_of_the_whole_training_split(tmp_path: Path) -> None:
    development = Digits().build(seed=0, folder=tmp_path).development
    (recipe,) = Bagging(count=1).members(make_setting(development)).recipes
    train, sample = development.train, recipe.development.train
    assert train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert abs(sample.inputs.mean().item()) > 1e-5  # scaled anew, it would be 0
    position = int(torch.nonzero(train.ids == sample.ids[0]))
    assert torch.equal(sample.inputs[0], train.inputs[position])


def test_predictions_and_scores_are_of_the_whole_data(setting: Setting, tmp_path: Path) -> None:
    context = make_context(setting, Bagging(count=2), tmp_path)
    pool = context.base_models
    assert pool.logits("train")["sign"].shape == (2, 48, 2)
    logits = pool.logits("validation")["sign"]
    targets = setting.development.validation.targets["sign"]
    for index, member in enumerate(pool):
        accuracy = (logits[index].argmax(dim=1) == targets).double().mean().item()
        assert member.validation["sign"]["accuracy"] == pytest.approx(accuracy)


def test_regression_and_several_tasks_have_samples_too() -> None:
    value = make_setting(make_development(VALUE))
    (recipe,) = Bagging(count=1, fraction=0.25).members(value).recipes
    assert len(recipe.development.train) == 12
    both = make_setting(make_development(SIGN, VALUE))
    (recipe,) = Bagging(count=1).members(both).recipes
    counts = [torch.bincount(d.train.targets["sign"]).tolist() for d in (recipe.development, both.development)]
    assert counts[0] == counts[1]


def test_ranges() -> None:
    for fraction in (0.0, 1.5):
        with pytest.raises(HyperparameterError, match=r"`fraction` should be in \(0, 1\]. Found `fraction = "):
            Bagging(fraction=fraction)
    with pytest.raises(HyperparameterError, match="should be below 1 without replacement.*base_models=seeds"):
        Bagging(replacement=False)
    with pytest.raises(HyperparameterError, match="`count` should be >= 1"):
        Bagging(count=0)
