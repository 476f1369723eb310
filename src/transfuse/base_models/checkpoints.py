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
        return Members(recipes=tuple(self._member(setting, Path(path)) for path in self.paths))

    def _member(self, setting: Setting, path: Path) -> Recipe:
        if not path.is_file():
            raise DataError(f"`base_models.paths` names {path}, which is no file.")
        recipe = setting.recipe(path.stem, seed=0)
        network = recipe.build()
        load_strict(network, read_state(path)[0], source=str(path))
        return replace(recipe, training=None, content=content_hash(network.state_dict()), path=str(path.absolute()))


def content_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(uint8).numpy().tobytes())
    return digest.hexdigest()
