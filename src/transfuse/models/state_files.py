"""State dicts from files and from the containers that frameworks wrap around them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from transfuse.state_dict import as_tensors, require_mapping
from transfuse.types import NonFiniteError, StateDictError

CONTAINERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")


def read_state(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a checkpoint file, on the CPU.

    Args:
        path: `.safetensors`, or a file of `torch.save` (`.pt`, `.pth`, `.bin`, `.ckpt`) that holds nothing but tensors
            and plain values; it is read with `weights_only=True` and nothing else.

    Returns:
        Key -> tensor, and the metadata of a safetensors file (empty for the others).

    Raises:
        StateDictError: when the file cannot be read, runs code when it is unpickled, or holds no state dict.
    """
    content, metadata = _read(Path(path))
    return unwrap(content, source=str(path))[0], metadata


def open_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The state dict of a file or a mapping, and the container that held it (empty for a plain one)."""
    if isinstance(source, (str, Path)):
        return unwrap(_read(Path(source))[0], source=str(source))
    return unwrap(require_mapping(source, "the source"), source="the source")


def unwrap(content: Mapping[str, Any], *, source: str) -> tuple[dict[str, Tensor], str]:
    """The first mapping under one of `CONTAINERS`, or `content` itself; NumPy arrays become tensors."""
    container = next((name for name in CONTAINERS if isinstance(content.get(name), Mapping)), "")
    state = content[container] if container else content
    strays = [str(key) for key, value in state.items() if not isinstance(value, (Tensor, np.ndarray))]
    if strays:
        raise StateDictError(
            f"{source} holds no state dict: `{strays[0]}` is no tensor. Tensors are looked for at the top and under "
            f"{', '.join(CONTAINERS)}. Found the keys {', '.join(str(key) for key in list(content)[:8])}."
        )
    return as_tensors(state, source), container


def require_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Raises `NonFiniteError` that names the first key with a NaN or infinite entry."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NonFiniteError(f"`{key}` of {source} holds values that are not finite.")


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    if not path.is_file():
        inside = path / "model.safetensors"
        raise StateDictError(
            f"{path} is no file." + (f" Did you mean {inside}?" if inside.is_file() else " Expected a checkpoint file.")
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), {})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise StateDictError(f"{path} cannot be read as safetensors: {error}.") from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on plain pickles, which the error below gives too
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is no checkpoint can make the unpickler fail in any way
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[0])
        raise StateDictError(
            f"{path} cannot be read with `weights_only=True`, and nothing else is tried, because unpickling runs code "
            f"({reason}). Save the state dict as safetensors instead: "
            f"`safetensors.torch.save_file(network.state_dict(), 'model.safetensors')`."
        ) from error
    if not isinstance(content, Mapping):
        raise StateDictError(f"{path} should hold a state dict. Found {type(content).__name__}.")
    return content
