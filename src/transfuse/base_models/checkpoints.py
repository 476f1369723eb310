"""`base_models=checkpoints`: weights that the user brings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, uint8

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.recipe import Recipe
from transfuse.models.loading import load_strict
from transfuse.models.state_files import read_state
from transfuse.types import DataError, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Checkpoints(BaseModelRecipe):
    """One member a file: safetensors, or a `.pt` that holds weights and nothing else.

    Every tensor must fit the run's `model`; a file that does not is told before anything is trained.

    Attributes:
        paths: the files, in order.
    """

    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.paths:
            raise HyperparameterError("`paths` should name at least one file. Found none.")

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a file; the key is the tensors' content, wherever the file lies."""
        recipes = (file_recipe(setting, Path(path), field="base_models.paths") for path in self.paths)
        return Members(recipes=tuple(recipes))


def file_recipe(setting: Setting, path: Path, *, field: str) -> Recipe:
    """The recipe of weights in a file; one that does not fit the run's model is told now.

    Args:
        setting: of the run.
        path: of the file.
        field: of the config that names it, for messages.
    """
    if not path.is_file():
        raise DataError(f"`{field}` names {path}, which is no file.")
    return given_recipe(setting, path.stem, read_state(path)[0], source=str(path))


def given_recipe(setting: Setting, name: str, state: Mapping[str, Tensor], *, source: str) -> Recipe:
    """The recipe of given weights, which decide its key; weights that do not fit the run's model are told now.

    Args:
        setting: of the run.
        name: of the member.
        state: its weights.
        source: what the messages call them.
    """
    recipe = setting.recipe(name, seed=0)
    network = recipe.build()
    load_strict(network, state, source=source)
    own = network.state_dict()
    return replace(recipe, training=None, content=content_hash(own), state=own)


def content_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(uint8).numpy().tobytes())
    return digest.hexdigest()
