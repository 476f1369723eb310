from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from transfuse.base_models import Hf, Setting
from transfuse.base_models.hf import read_weights
from transfuse.models import Architecture, build_hf
from transfuse.training.settings import Training
from transfuse.types import (
    CoverageError,
    DataError,
    Development,
    IncompatibleStrategyError,
    MissingExtraError,
    Split,
    Task,
)

needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="pip install 'transfuse[hf]'")


def texts(source: Development | None = None) -> Development:
    """Six texts of four tokens."""
    split = Split(inputs=torch.arange(24).reshape(6, 4), targets={"y": torch.arange(6) % 2}, ids=torch.arange(6))
    task = Task(name="y", kind="classification", outputs=2)
    return Development(name="t", tasks=(task,), train=split, validation=split, fingerprint="f", source=source)


def setting_of(folder: Path, development: Development, name: str = "hf") -> Setting:
    architecture = Architecture(name=name, recipe={"folder": str(folder)}, make=partial(build_hf, folder=str(folder)))
    return Setting(development=development, architecture=architecture, training=Training(), seed=0)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The folder of a tiny encoder."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_the_member_has_the_folders_weights(encoder: Path) -> None:
    (recipe,) = Hf().members(setting_of(encoder, texts(source=texts()))).recipes
    given = load_file(encoder / "model.safetensors")
    assert recipe.state is not None and recipe.training is None
    assert (recipe.name, recipe.trained_on) == ("tiny", "source")
    assert torch.equal(
        recipe.state["backbone.stem.embeddings.word_embeddings.weight"], given["embeddings.word_embeddings.weight"]
    )
    key = "attention.self.query.weight"
    assert torch.equal(recipe.state[f"backbone.stages.0.layer.{key}"], given[f"encoder.layer.0.{key}"])


def test_the_key_is_the_content(encoder: Path) -> None:
    setting = setting_of(encoder, texts())
    (recipe,) = Hf().members(setting).recipes
    (again,) = Hf().members(replace(setting, seed=5)).recipes
    assert recipe.trained_on == "target"
    assert recipe.key == again.key  # one entry in the store for all seeds
    changed = {name: value + 1 for name, value in load_file(encoder / "model.safetensors").items()}
    save_file(changed, encoder / "model.safetensors")
    assert Hf().members(setting).recipes[0].key != recipe.key


def test_weights_in_several_parts_and_of_another_folder(encoder: Path, tmp_path: Path) -> None:
    weights = load_file(encoder / "model.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((encoder / "config.json").read_text())
    names = sorted(weights)
    for part, chosen in enumerate((names[::2], names[1::2])):
        torch.save({name: weights[name] for name in chosen}, other / f"pytorch_model-{part}.bin")
    assert read_weights(other).keys() == weights.keys()
    setting = setting_of(encoder, texts())
    assert Hf(folder=str(other)).members(setting).recipes[0].key == Hf().members(setting).recipes[0].key


def test_bad_folders(encoder: Path, tmp_path: Path) -> None:
    setting = setting_of(encoder, texts())
    weights = load_file(encoder / "model.safetensors")
    (encoder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"holds no weights: neither"):
        Hf().members(setting)
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, encoder / "model.safetensors")
    with pytest.raises(CoverageError, match=r"backbone\.stages\.0\.layer\.attention\.self\.query\.weight"):
        Hf().members(setting)
    with pytest.raises(DataError, match=r"holds no config\.json"):
        Hf(folder=str(tmp_path / "none")).members(setting)


def test_another_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleStrategyError, match=r"Found model=cnn\. Did you mean model=hf model\.folder=x\?"):
        Hf(folder="x").members(setting_of(tmp_path, texts(), name="cnn"))


def test_without_transformers_the_install_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'transfuse\[hf\]'"):
        Hf().members(setting_of(tmp_path, texts()))
