from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from safetensors.torch import load_file

import transfuse
from transfuse.base_models import Registry
from transfuse.base_models.pool import Pool
from transfuse.config import read
from transfuse.experiment import prepare
from transfuse.suggest import CONF
from transfuse.types import ConfigError, DataError, HyperparameterError, StateDictMismatch, TransfuseError

QUICK = ["training.epochs=1", "trainer.progress=false", "model.widths=[16]"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """An outputs folder whose tracking store holds models: those of a run, and registered ones.

    Attributes:
        run: id of the run's entry.
        model: id of the logged model of its first base model.
        keys: of its base models in the store.
    """

    outputs: Path
    client: Any
    run: str
    model: str
    keys: tuple[str, ...]

    def pool(self, *uris: str, overrides: tuple[str, ...] = ()) -> Pool:
        """The pool of a run that is prepared and not started."""
        quoted = f"base_models.uris=[{','.join(uris)}]"
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            chosen = [*QUICK, "base_models=registry", quoted, f"paths.outputs={self.outputs}", *overrides]
            config = compose("config", overrides=chosen)
        return prepare(read(config, self.outputs / "run")).pool


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    outputs = tmp_path_factory.mktemp("outputs")
    seeds = ["base_models=seeds", "base_models.count=2", "strategy=weight_fusion/uniform_soup"]
    record = transfuse.run([*QUICK, *seeds, f"paths.outputs={outputs}"])
    uri = f"sqlite:///{outputs / 'mlflow.db'}"
    client, run = MlflowClient(tracking_uri=uri), str(record.tracking["run_id"])
    keys = tuple(str(member["key"]) for member in record.base_models)
    (entry,) = client.search_runs([client.get_run(run).info.experiment_id], f"tags.`transfuse.key` = '{keys[0]}'")
    model = entry.outputs.model_outputs[0].model_id
    state = outputs / "state.pt"
    torch.save(load_file(outputs / "store" / keys[0] / "model.safetensors"), state)
    client.log_artifact(run, str(state), "weights")
    for name in ("a", "b"):
        (outputs / f"{name}.safetensors").write_bytes(b"damaged")
        client.log_artifact(run, str(outputs / f"{name}.safetensors"), "broken")
    client.create_registered_model("digits")
    mlflow.set_tracking_uri(uri)  # MLflow's registry looks up logged models there
    client.create_model_version("digits", source=f"models:/{model}", model_id=model)
    client.create_model_version("digits", source=f"runs:/{run}/fused", run_id=run)
    mlflow.set_tracking_uri(None)
    client.set_registered_model_alias("digits", "champion", "1")
    return Published(outputs=outputs, client=client, run=run, model=model, keys=keys)


def test_models_that_we_log_are_found_again_by_every_kind_of_uri(published: Published) -> None:
    run, model = published.run, published.model
    first = load_file(published.outputs / "store" / published.keys[0] / "model.safetensors")
    (fused,) = (load_file(path) for path in published.outputs.glob("runs/*/*/fused/model.safetensors"))
    expected = {
        "models:/digits/1": ("models:/digits/1", first),
        "models:/digits@champion": ("models:/digits/1", first),
        f"models:/{model}": (f"models:/{model}", first),
        f"runs:/{run}/weights": (f"runs:/{run}/weights", first),
        f"runs:/{run}/weights/state.pt": (f"runs:/{run}/weights/state.pt", first),
        "models:/digits/2": ("models:/digits/2", fused),
        f"runs:/{run}/fused": (f"runs:/{run}/fused", fused),
        f"runs:/{run}/fused/model.safetensors": (f"runs:/{run}/fused/model.safetensors", fused),
    }
    recipes = published.pool(*expected).members.recipes
    for recipe, (name, state) in zip(recipes, expected.values(), strict=True):
        assert recipe.name == name and recipe.training is None and recipe.state is not None
        assert recipe.state.keys() == state.keys()
        assert all(torch.equal(recipe.state[key], state[key]) for key in state)
    assert [recipe.key for recipe in recipes] == [recipes[0].key] * 5 + [recipes[-1].key] * 3
    assert recipes[0].key != recipes[-1].key


def test_the_key_is_the_content_wherever_it_lies(published: Published) -> None:
    (recipe,) = published.pool("models:/digits/1").members.recipes
    file = str(published.outputs / "store" / published.keys[0] / "model.safetensors")
    fields = ["base_models=checkpoints", f"base_models.paths=[{file}]", f"paths.outputs={published.outputs}"]
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        config = compose("config", overrides=[*QUICK, *fields])
    (checkpoint,) = prepare(read(config, published.outputs / "run")).pool.members.recipes
    assert checkpoint.key == recipe.key


def test_a_run_on_published_models(published: Published) -> None:
    uris = f"base_models.uris=[models:/digits@champion,runs:/{published.run}/fused]"
    fields = ["base_models=registry", uris, "strategy=output_fusion/average", f"paths.outputs={published.outputs}"]
    record = transfuse.run([*QUICK, *fields])
    assert [member["name"] for member in record.base_models] == ["models:/digits/1", f"runs:/{published.run}/fused"]
    assert not any(member["trained_here"] for member in record.base_models)
    stored = transfuse.run([*QUICK, "base_models=seeds", "base_models.count=2", fields[2], fields[3], "tracking=off"])
    assert record.base_models[0]["validation"] == stored.base_models[0]["validation"]
    assert record.cost["base_seconds"] == 0
    assert record.status == "finished" and record.tracking["failure"] is None


def test_an_alias_that_moves_gives_another_member(published: Published) -> None:
    published.client.set_registered_model_alias("digits", "latest-good", "1")
    (before,) = published.pool("models:/digits@latest-good").members.recipes
    published.client.set_registered_model_alias("digits", "latest-good", "2")
    (after,) = published.pool("models:/digits@latest-good").members.recipes
    assert (before.name, after.name) == ("models:/digits/1", "models:/digits/2")
    assert before.key != after.key


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/digits/9", "models:/digits/9 cannot be read from the tracking store: Model Version"),
        ("models:/digits@nobody", "Registered model alias nobody not found."),
        ("models:/nothing/1", "Model Version (name=nothing, version=1) not found."),
        ("models:/m-0", "Logged model with ID 'm-0' not found."),
        ("runs:/0/fused", "Run with id=0 not found."),
        ("runs:/{run}/nothing", "No such artifact: 'nothing'."),
        ("runs:/{run}/record.json", "runs:/{run}/record.json should hold one file of weights (.safetensors, .pt"),
        ("runs:/{run}/.hydra", "Found config.yaml, overrides.yaml. Name one by its path: runs:/<run id>/<path>."),
        ("runs:/{run}/broken", "Found a.safetensors, b.safetensors. Name one by its path"),
        ("runs:/{run}/broken/a.safetensors", "runs:/{run}/broken/a.safetensors cannot be read as safetensors"),
    ],
)
def test_what_is_not_there_is_told_before_training(uri: str, message: str, published: Published) -> None:
    before = sorted(published.outputs.rglob("*"))
    with pytest.raises(TransfuseError) as error:
        published.pool(uri.format(run=published.run))
    assert message.format(run=published.run) in str(error.value)
    assert sorted(published.outputs.rglob("*")) == before


def test_a_model_of_another_architecture_is_told(published: Published) -> None:
    with pytest.raises(StateDictMismatch, match="models:/digits/1 does not fit the network: `backbone.*has shape"):
        published.pool("models:/digits/1", overrides=("model.widths=[8]",))


def test_without_a_store_nothing_is_created(published: Published, tmp_path: Path) -> None:
    elsewhere = f"paths.outputs={tmp_path}"
    with pytest.raises(DataError, match=f"there is no MLflow database {tmp_path}/mlflow.db. Is tracking.uri right"):
        published.pool("models:/digits/1", overrides=(elsewhere,))
    with pytest.raises(DataError, match="without a tracking store. Did you mean tracking=mlflow?"):
        published.pool("models:/digits/1", overrides=(elsewhere, "tracking=off"))
    assert list(tmp_path.iterdir()) == []


def test_the_store_that_the_run_is_told_of_is_read(published: Published, tmp_path: Path) -> None:
    store = f"tracking.uri=sqlite:///{published.outputs / 'mlflow.db'}"
    (recipe,) = published.pool("models:/digits/1", overrides=(f"paths.outputs={tmp_path}", store)).members.recipes
    assert recipe.name == "models:/digits/1"


def test_uris_are_needed_and_of_known_kinds(published: Published) -> None:
    with pytest.raises(HyperparameterError, match="`uris` should name at least one model. Found none."):
        Registry()
    with pytest.raises(ConfigError, match="`base_models.uris` should name at least one model"):
        published.pool()
    with pytest.raises(ConfigError, match="should hold models:/.* Found `base_models.uris = s3:/a`"):
        published.pool("s3:/a")
    with pytest.raises(ConfigError, match="runs:/<run id>/<path>. Found `base_models.uris = runs:/0`"):
        published.pool("runs:/0")
