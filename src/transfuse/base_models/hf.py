"""`base_models=hf`: the pretrained weights of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.checkpoints import content_hash
from transfuse.base_models.recipe import Recipe
from transfuse.models.hf import KEY_MAP, read_config
from transfuse.models.loading import load
from transfuse.models.state_files import read_state
from transfuse.types import DataError, IncompatibleStrategyError


@dataclass(frozen=True, kw_only=True)
class Hf(BaseModelRecipe):
    """One member: the encoder of the folder with a fresh head; every weight of the run's `model=hf` must be there.

    Attributes:
        folder: with the weights, `*.safetensors` or `pytorch_model*.bin`; null: the model's.
    """

    folder: str | None = None

    def lay_out(self, setting: Setting) -> Members:
        """The recipe; the key is the tensors' content, wherever the folder lies."""
        if setting.architecture.name != "hf":
            raise IncompatibleStrategyError(
                f"base_models=hf holds the weights of model=hf. Found model={setting.architecture.name}. "
                f"Did you mean model=hf model.folder={self.folder or '<folder>'}?"
            )
        folder = Path(self.folder or setting.architecture.recipe["folder"])
        read_config(folder)
        return Members(recipes=(_recipe(setting, folder),))


def _recipe(setting: Setting, folder: Path) -> Recipe:
    recipe = setting.recipe(folder.name, seed=0)  # one head for all runs, so that they share one entry in the store
    network = recipe.build()
    load(read_weights(folder), network, key_map=list(KEY_MAP), min_coverage=1.0)
    state = network.state_dict()
    trained_on: Literal["source", "target"] = "source" if setting.development.kind == "transfer" else "target"
    return replace(recipe, training=None, content=content_hash(state), state=state, trained_on=trained_on)


def read_weights(folder: Path) -> Mapping[str, Tensor]:
    """All tensors of a folder, of one file or of several parts.

    Raises:
        DataError: there is no file of weights.
    """
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return {key: value for file in files for key, value in read_state(file)[0].items()}
    raise DataError(f"{folder} holds no weights: neither *.safetensors nor pytorch_model*.bin.")
