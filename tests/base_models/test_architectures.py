from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from torch import nn

import transfuse
from tests.sweep.commands import start
from tests.toy import make_context
from transfuse.base_models import Architectures, Setting
from transfuse.config import read
from transfuse.experiment import prepare
from transfuse.models import build_mlp
from transfuse.models.architecture import Architecture
from transfuse.suggest import CONF
from transfuse.types import ConfigError, HyperparameterError

POOL = ["base_models=architectures", "tracking=off", "trainer.progress=false"]


def mlp(*widths: int) -> Architecture:
    def make(**given: Any) -> nn.Module:
        return build_mlp(widths=widths, **given)

    return Architecture(name="mlp", recipe={"_target_": "mlp", "widths": list(widths)}, make=make)


def layouts(folder: Path, *overrides: str) -> dict[str, str]:
    """Member's name -> what its architecture's builder and sizes are."""
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*POOL, f"paths.outputs={folder}", *overrides])
    members = prepare(read(config, folder / "run")).pool.members.recipes
    assert not list(folder.iterdir())
    recipes = {member.name.removeprefix("architectures-"): member.architecture.recipe for member in members}
    return {
        name: f"{recipe['_target_'].rpartition('_')[2]} {recipe.get('widths', '')}" for name, recipe in recipes.items()
    }


def test_members_have_their_own_architecture_and_seed(setting: Setting) -> None:
    pool = Architectures(models={"a": mlp(4), "b": mlp(6, 6), "c": mlp(4)})
    recipes = pool.members(setting).recipes
    assert [recipe.name for recipe in recipes] == ["architectures-a", "architectures-b", "architectures-c"]
    assert [recipe.description.layout for recipe in recipes] == [mlp(4).layout, mlp(6, 6).layout, mlp(4).layout]
    assert len({recipe.key for recipe in recipes}) == 3  # the third is the first with another seed
    first = replace(setting, architecture=mlp(4)).recipe("any", seed=setting.member_seed(0))
    assert recipes[0].key == first.key  # as if the run's model were this one


def test_members_agree_on_tasks_and_shapes(setting: Setting, tmp_path: Path) -> None:
    pool = make_context(setting, Architectures(models={"a": mlp(4), "b": mlp(6, 6)}), tmp_path).base_models
    assert pool.logits("validation")["sign"].shape == (2, 24, 2)
    assert [sum(p.numel() for p in member.network().parameters()) for member in pool] == [30, 86]


def test_models_are_composed_from_the_command_line(tmp_path: Path) -> None:
    shipped = {"narrow": "mlp [32, 32]", "mlp": "mlp [128, 128]", "wide": "mlp [256, 256]", "cnn": "cnn "}
    assert layouts(tmp_path) == shipped
    assert layouts(tmp_path, "+model@base_models.models.more=resnet") == {**shipped, "more": "resnet "}
    assert layouts(tmp_path, "model@base_models.models.wide=cnn") == {**shipped, "wide": "cnn "}
    assert layouts(tmp_path, "~model@base_models.models.mlp") == {k: v for k, v in shipped.items() if k != "mlp"}
    assert layouts(tmp_path, "base_models.models.wide.widths=[512]") == {**shipped, "wide": "mlp [512]"}
    deep = "+base_models.models.deep={_target_: transfuse.models.build_mlp, widths: [64, 64, 64]}"
    assert layouts(tmp_path, deep) == {**shipped, "deep": "mlp [64, 64, 64]"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("base_models.models.wide.widths=[0]", "`base_models.models.wide.widths` should be a list of one or more"),
        ("base_models.models.wide.widths=[a]", "`base_models.models.wide.widths` should be a list"),
        (
            "+base_models.models.wide.width=[8]",
            "`base_models.models.wide.width` is no key of the config. Did you mean base_models.models.wide.widths?",
        ),
        ("+base_models.models.more={widths: [8]}", "`base_models.models.more` should be an option of its group"),
        ("base_models.models=null", "`base_models.models` should be a mapping. Found `base_models.models = None`."),
    ],
)
def test_a_model_that_cannot_be_built_is_named_by_its_full_key(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        layouts(tmp_path, override)
    assert str(error.value).startswith(message)


def test_no_model_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="`models` should name at least one architecture. Found none."):
        Architectures()


def test_weights_of_different_architectures_are_not_fused(tmp_path: Path) -> None:
    command = start("strategy=weight_fusion/uniform_soup base_models=architectures", cwd=tmp_path)
    assert command.end() == 1
    assert (
        "weight_fusion/uniform_soup needs base models of one architecture. Found mlp (model 0), mlp of other sizes "
        "(model 1), mlp of other sizes (model 2) and cnn (model 3). "
        "Did you mean an output_fusion strategy, or base_models=seeds?"
    ) in command.output.read_text()
    assert list(tmp_path.iterdir()) == [command.output]


def test_outputs_of_different_architectures_are_fused(tmp_path: Path) -> None:
    record = transfuse.run([*POOL, f"paths.outputs={tmp_path}", "strategy=output_fusion/average", "training.epochs=3"])
    names = [member["name"] for member in record.base_models]
    assert names == [f"architectures-{name}" for name in ("narrow", "mlp", "wide", "cnn")]
    accuracies = [member["validation"]["digit"]["accuracy"] for member in record.base_models]
    assert min(accuracies) > 0.4 and len(set(accuracies)) > 1  # chance is 0.1: all have the same order of classes
    assert record.metrics["test/accuracy"] > 0.8
    (fused,) = tmp_path.glob("runs/*/*/fused/model.safetensors")
    shapes = {tuple(value.shape) for name, value in load_file(fused).items() if "heads.digit" in name}
    assert {(10, 32), (10, 128), (10, 256), (10, 64), (10,)} == shapes
    assert torch.isfinite(torch.tensor(list(record.metrics.values()))).all()
