from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.toy import make_context
from transfuse.base_models import Hyperparameters, Setting
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError

LOG = {"low": 1e-4, "high": 1e-2, "log": True}


def trainings(setting: Setting, **fields: Any) -> list[Training]:
    recipes = Hyperparameters(**fields).members(setting).recipes
    return [recipe.training for recipe in recipes if recipe.training is not None]


def keys(setting: Setting, **fields: Any) -> list[str]:
    return [recipe.key for recipe in Hyperparameters(**fields).members(setting).recipes]


def test_the_grid_is_taken_in_order_and_again_from_its_start(setting: Setting) -> None:
    choices = {"lr": [0.1, 0.01], "optimizer": ["adam", "sgd"]}
    found = [(item.lr, item.optimizer) for item in trainings(setting, choices=choices, count=5)]
    grid = [(0.1, "adam"), (0.1, "sgd"), (0.01, "adam"), (0.01, "sgd")]
    assert found == [*grid, grid[0]]
    assert [(item.lr, item.optimizer) for item in trainings(setting, choices=choices)] == grid
    assert len(set(keys(setting, choices=choices, count=5))) == 5  # the fifth has a seed of its own
    assert {item.epochs for item in trainings(setting, choices=choices)} == {2}


def test_the_default_is_a_small_grid(setting: Setting) -> None:
    found = [(item.lr, item.weight_decay) for item in trainings(setting)]
    assert found == [(1e-3, 0.0), (1e-3, 1e-4), (3e-4, 0.0), (3e-4, 1e-4)]


def test_the_key_holds_what_a_member_got_and_not_where_from(setting: Setting) -> None:
    seeds = [setting.recipe("any", seed=setting.member_seed(index)) for index in range(2)]
    expected = [
        replace(seed, training=replace(setting.training, lr=lr)).key for seed, lr in zip(seeds, (0.5, 1.0), strict=True)
    ]
    assert keys(setting, choices={"lr": [0.5, 1]}) == expected  # 1 and 1.0 mean one recipe
    assert keys(setting, choices={"lr": [0.5, 1.0, 2.0]}, count=2) == expected
    assert keys(setting, space={"lr": {"low": 0.5, "high": 0.5}}, count=1) == expected[:1]


def test_random_settings_are_the_members_own(setting: Setting) -> None:
    five = trainings(setting, space={"lr": LOG}, count=5)
    assert len({item.lr for item in five}) == 5 and all(1e-4 <= item.lr <= 1e-2 for item in five)
    assert trainings(setting, space={"lr": LOG}, count=3) == five[:3]
    more = trainings(setting, space={"batch_size": {"low": 8, "high": 64}, "lr": LOG}, count=5)
    assert [item.lr for item in more] == [item.lr for item in five]  # a further field moves no other
    assert all(isinstance(item.batch_size, int) and 8 <= item.batch_size <= 64 for item in more)
    other = trainings(replace(setting, seed=1), space={"lr": LOG}, count=5)
    assert not {item.lr for item in other} & {item.lr for item in five}


def test_a_grid_and_a_draw_together(setting: Setting) -> None:
    found = trainings(setting, choices={"optimizer": ["adam", "sgd"]}, space={"lr": LOG}, count=4)
    assert [item.optimizer for item in found] == ["adam", "sgd", "adam", "sgd"]
    assert len({item.lr for item in found}) == 4


def test_steps_replace_epochs(setting: Setting) -> None:
    found = trainings(setting, choices={"steps": [3, 6]})
    assert [(item.steps, item.epochs) for item in found] == [(3, None), (6, None)]


def test_the_settings_reach_the_training(setting: Setting, tmp_path: Path) -> None:
    pool = make_context(setting, Hyperparameters(choices={"lr": [1e-12, 0.1]}), tmp_path).base_models
    start, moved = (recipe.build().state_dict() for recipe in Hyperparameters(count=2).members(setting).recipes)
    still, learned = (member.state for member in pool)
    assert all((still[name] - start[name]).abs().max() < 1e-6 for name in start)
    assert any((learned[name] - moved[name]).abs().max() > 1e-2 for name in moved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": {"lrr": [1]}}, "`choices.lrr` is no field of the training group. Did you mean lr?"),
        ({"choices": {"lr": []}}, "`choices.lr` should be a list of at least one value. Found `choices.lr = []`."),
        ({"choices": {"lr": [0.1, -1.0]}}, "`choices.lr` should be > 0 and finite. Found `choices.lr = -1.0`."),
        (
            {"choices": {"optimizer": ["sdg"]}},
            "`choices.optimizer` should hold adam or adamw or sgd each. Found `choices.optimizer = 'sdg'`.",
        ),
        ({"space": {"optimizer": LOG}}, "`space.optimizer` is no number. Its values belong into `choices`."),
        ({"space": {"momentum": {"low": 0, "high": 1}}, "count": 1}, "`space.momentum` should be in [0, 1). Found"),
        ({"space": {"lr": {"low": 1}}}, "`space.lr.high` is missing."),
        ({"space": {"lr": LOG}}, "`count` should be set where settings are drawn at random. Found `count = None`."),
        ({"space": {"lr": LOG}, "choices": {"lr": [1.0]}}, "`space.lr` is in `choices` too."),
        ({"choices": {"epochs": [1], "steps": [1]}}, "`choices` and `space` should not name both epochs and steps."),
        ({"count": 0}, "`count` should be >= 1. Found `count = 0`."),
    ],
)
def test_bad_input_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError) as error:
        Hyperparameters(**fields)
    assert str(error.value).startswith(message)


def test_a_batch_is_shared_by_all_devices(setting: Setting) -> None:
    with pytest.raises(HyperparameterError, match=r"batch_size` should be a multiple of the number of devices \(2\)"):
        Hyperparameters(choices={"batch_size": [15]}).members(replace(setting, world_size=2))
