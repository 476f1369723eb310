"""`base_models=registry`: networks that were published in MLflow."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from transfuse.base_models.base import BaseModelRecipe, Members, Setting
from transfuse.base_models.checkpoints import given_recipe
from transfuse.base_models.recipe import Recipe
from transfuse.models.state_files import read_state
from transfuse.types import DataError, HyperparameterError, StateDictError

_URI = re.compile(r"models:/[^/]+(/[^/]+)?|runs:/[^/]+/.+")
_FORMATS = ((".safetensors",), (".pt", ".pth", ".bin", ".ckpt"))  # the first that there is one of


@dataclass(frozen=True, kw_only=True)
class Registry(BaseModelRecipe):
    """One member a URI: weights in the run's own tracking store, which `tracking.uri` names.

    Every tensor must fit the run's `model`; what does not is told before anything is trained. An alias is resolved
    once, when the run starts: the member's name holds the version, its key the content.

    Attributes:
        uris: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<id of a logged model>` or
            `runs:/<run id>/<path of an artifact or name of a logged model>`, in order.
    """

    uris: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.uris:
            raise HyperparameterError("`uris` should name at least one model. Found none.")
        for uri in self.uris:
            if not _URI.fullmatch(uri):
                raise HyperparameterError(
                    f"`uris` should hold models:/<name>/<version>, models:/<name>@<alias> or runs:/<run id>/<path>. "
                    f"Found `uris = {uri}`."
                )

    def lay_out(self, setting: Setting) -> Members:
        """One recipe a URI; the key is the tensors' content, wherever they came from."""
        return Members(recipes=tuple(_member(setting, uri) for uri in self.uris))


def _member(setting: Setting, uri: str) -> Recipe:
    assert setting.fetch is not None, "the run gives it"
    with tempfile.TemporaryDirectory(prefix="transfuse-") as folder:
        name, place = setting.fetch(uri, Path(folder))
        file = _weights_file(place, uri)
        try:
            state, _ = read_state(file)
        except StateDictError as error:
            raise StateDictError(str(error).replace(str(file), uri)) from error
    return given_recipe(setting, name, state, source=uri)


def _weights_file(place: Path, uri: str) -> Path:
    """The one file of weights in what was fetched."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    for formats in _FORMATS:
        found = [path for path in files if path.suffix in formats]
        if len(found) == 1:
            return found[0]
        if found:
            break
    listed = ", ".join(path.name for path in files[:8]) or "no file"
    raise DataError(
        f"{uri} should hold one file of weights ({', '.join(end for ends in _FORMATS for end in ends)}). "
        f"Found {listed}. Name one by its path: runs:/<run id>/<path>."
    )
