"""Names and values as MLflow takes them: flat params, allowed characters, length limits."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DIGEST_LENGTH = 36

_Item = TypeVar("_Item")


def entry_name(name: str) -> str:
    """The name of a metric or a param: `@`, `=`, parentheses and their like become `_`, doubled slashes single.

    >>> entry_name("test/f1@0.5 (macro)")
    'test/f1_0.5 _macro_'
    """
    return posixpath.normpath(re.sub(r"[^\w./ :-]", "_", name)).strip("/.")[:KEY_LENGTH] or "_"


def model_name(name: str) -> str:
    """The name of a logged model, which holds no slash, colon, dot, percent sign or quote."""
    return re.sub(r"[/:.%\"']", "-", name) or "model"


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as one level of strings, keys joined by dots; lists stay whole.

    >>> flat_params({"model": {"width": 64}, "seed": 0})
    {'model.width': '64', 'seed': '0'}
    """
    params: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            params |= flat_params(value, f"{name}.")
        else:
            params[entry_name(name)] = str(value)[:PARAM_LENGTH]
    return params


def flat_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags with names and values cut to what fits."""
    return {entry_name(name): str(value)[:TAG_LENGTH] for name, value in tags.items()}


def finite_or_nan(value: float) -> float:
    """The value as a float; NaN where it is infinite, which MLflow would store as 1.8e308."""
    number = float(value)
    return number if math.isfinite(number) else math.nan


def batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """The items in order, at most `size` at a time; nothing for no items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
