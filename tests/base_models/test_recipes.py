from __future__ import annotations

from dataclasses import replace

import pytest

from transfuse.base_models import Auto, Finetuned, PerTask, Seeds, Setting, Source, SourceAndTarget
from transfuse.base_models.recipe import Recipe
from transfuse.training.settings import Training
from transfuse.types import HyperparameterError, IncompatibleStrategyError


def keys(recipes: tuple[Recipe, ...]) -> list[str]:
    return [recipe.key for recipe in recipes]


def test_a_smaller_pool_is_a_prefix_of_a_larger_one(setting: Setting) -> None:
    for pool in (Seeds, Finetuned):
        three, five = pool(count=3).members(setting), pool(count=5).members(setting)
        assert keys(three.recipes) == keys(five.recipes)[:3]
        assert len(set(keys(five.recipes))) == 5


def test_members_of_different_runs_share_nothing_by_accident(setting: Setting) -> None:
    pools = [Seeds(count=3).members(replace(setting, seed=seed)) for seed in range(3)]
    assert len({key for pool in pools for key in keys(pool.recipes)}) == 9


def test_the_key_is_what_decides_the_weights(setting: Setting) -> None:
    recipe = setting.recipe("a", seed=1)
    assert replace(recipe, name="b").key == recipe.key
    changed = [
        replace(recipe, seed=2),
        replace(recipe, training=Training(epochs=2, batch_size=16, lr=0.5)),
        replace(recipe, precision="bf16-mixed"),
        replace(recipe, world_size=2),
        replace(recipe, start=setting.recipe("start", seed=3)),
        replace(recipe, development=replace(setting.development, fingerprint="other")),
        replace(recipe, architecture=replace(recipe.architecture, recipe={"_target_": "cnn"})),
    ]
    assert len({recipe.key, *keys(tuple(changed))}) == len(changed) + 1


def test_finetuned_members_share_a_short_start(setting: Setting) -> None:
    members = Finetuned(count=4, start_share=0.5, lr_factors=(1.0, 0.1)).members(setting)
    assert members.base is not None and members.base.training is not None
    assert members.base.training.epochs == 1
    assert {recipe.start.key for recipe in members.recipes if recipe.start} == {members.base.key}
    factors = [recipe.training.lr / setting.training.lr for recipe in members.recipes if recipe.training]
    assert factors == pytest.approx([1.0, 0.1, 1.0, 0.1])


def test_per_task_members_have_one_head_each_and_one_start(multi_task: Setting) -> None:
    members = PerTask().members(multi_task)
    assert [recipe.description.tasks for recipe in members.recipes] == [("sign",), ("value",)]
    assert members.base is not None and members.base.training is None
    assert all(recipe.start is members.base for recipe in members.recipes)


def test_per_task_members_may_start_from_a_joint_training(multi_task: Setting) -> None:
    members = PerTask(start_share=0.5).members(multi_task)
    assert members.base is not None and members.base.training is not None
    assert members.base.training.epochs == max(1, round((multi_task.training.epochs or 0) * 0.5))
    assert members.base.description.tasks == ("sign", "value")
    assert {recipe.start.key for recipe in members.recipes if recipe.start} == {members.base.key}
    for share in (-0.1, 1.5):
        with pytest.raises(HyperparameterError, match=r"`start_share` should be in \[0, 1\]"):
            PerTask(start_share=share)


def test_the_source_may_have_a_budget_of_its_own(transfer: Setting) -> None:
    (plain,), (longer,) = (pool.members(transfer).recipes for pool in (Source(), Source(steps=800, batch_size=64)))
    assert plain.training == transfer.training
    assert longer.training == replace(transfer.training, epochs=None, steps=800, batch_size=64)
    (passes,) = Source(epochs=7).members(transfer).recipes
    assert passes.training == replace(transfer.training, epochs=7, steps=None)
    assert len({plain.key, longer.key, passes.key}) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 2, "steps": 3}, r"At most one of `epochs` and `steps` .* Found `epochs = 2`, `steps = 3`\.$"),
        ({"epochs": 0}, r"^`epochs` should be >= 1 or null\. Found `epochs = 0`\.$"),
        ({"steps": 0}, "`steps` should be >= 1 or null"),
        ({"batch_size": -1}, "`batch_size` should be >= 1 or null"),
    ],
)
def test_a_source_budget_out_of_range(fields: dict[str, int], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Source(**fields)


def test_source_pools_train_on_the_source(transfer: Setting) -> None:
    (source,) = Source().members(transfer).recipes
    both = SourceAndTarget().members(transfer).recipes
    assert source.trained_on == "source" and source.development is transfer.development.source
    assert [recipe.trained_on for recipe in both] == ["source", "target"]
    assert both[0].key == source.key


def test_auto_takes_the_pool_of_the_problem(setting: Setting, multi_task: Setting, transfer: Setting) -> None:
    assert keys(Auto(count=2).members(setting).recipes) == keys(Seeds(count=2).members(setting).recipes)
    assert keys(Auto().members(multi_task).recipes) == keys(PerTask().members(multi_task).recipes)
    assert keys(Auto().members(transfer).recipes) == keys(Source().members(transfer).recipes)


def test_a_pool_that_does_not_fit_the_problem_says_so(setting: Setting) -> None:
    with pytest.raises(IncompatibleStrategyError, match="base_models=per_task is for multi_task problems"):
        PerTask().members(setting)
    with pytest.raises(IncompatibleStrategyError, match="base_models=source is for transfer problems"):
        Source().members(setting)


def test_ranges() -> None:
    with pytest.raises(HyperparameterError, match="`count` should be >= 1"):
        Seeds(count=0)
    with pytest.raises(HyperparameterError, match="`start_share` should be in"):
        Finetuned(start_share=0.0)
    with pytest.raises(HyperparameterError, match="`lr_factors` should be positive"):
        Finetuned(lr_factors=(1.0, 0.0))


def test_ways_to_share_leave_the_keys_of_single_task_networks(multi_task: Setting) -> None:
    plain = multi_task.architecture
    soft = replace(plain, recipe={**plain.recipe, "sharing": {"_target_": "mmoe"}}, plain=plain)
    sharing = replace(multi_task, architecture=soft)
    for pool in (PerTask(), PerTask(start_share=0.5)):
        hard, found = pool.members(multi_task), pool.members(sharing)
        assert keys(found.recipes) == keys(hard.recipes)
        assert found.base is not None and hard.base is not None and found.base.key == hard.base.key
        assert [each.description for each in found.recipes] == [each.description for each in hard.recipes]
    one = multi_task.development.for_task("sign")
    single = replace(sharing, development=one).recipe("a", seed=1)
    assert single.key == replace(multi_task, development=one).recipe("a", seed=1).key
    # of several tasks it is another network
    assert keys(Seeds(count=2).members(sharing).recipes) != keys(Seeds(count=2).members(multi_task).recipes)
