"""From names to classes for the library functions: `("output_fusion", "average")` to `Average`.

There is no registry: a method's stem is its module, and the class is what the module defines.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from transfuse.conformity import conforms, hints, readable
from transfuse.types import HyperparameterError


def find(family: str, stem: str) -> type[Any]:
    """The concrete class of the method `stem` of a family or component group.

    Args:
        family: a folder of `transfuse.strategy` with a `base.py`, such as `output_fusion` or `weights`.
        stem: the method's file and config name, such as `weighted_average`.

    Returns:
        The class that `transfuse.strategy.<family>.<stem>` defines and that derives from a class of the family's base.

    Raises:
        HyperparameterError: when there is none; the message holds the nearest names.

    Example:
        >>> find("output_fusion", "average").__name__
        'Average'
    """
    if not isinstance(stem, str):
        raise HyperparameterError(f"A method of {family} is given by its name. Found {stem!r}.")
    found = _concrete(family, stem) if stem in _modules(family) else None
    if found is None:
        stems = [name for name in _modules(family) if _concrete(family, name) is not None]
        raise HyperparameterError(f"{family} has no method {stem!r}. {_suggestion(stem, stems)}")
    return found


def build(family: str, stem: str, fields: Mapping[str, Any]) -> Any:
    """The method `stem` with its hyper-parameters; unknown ones are answered with the nearest names.

    Raises:
        HyperparameterError: an unknown method or field, or a value that is out of range or of a wrong type.

    Example:
        >>> build("weights", "softmax_score", {"temperature": 0.1})
        SoftmaxScore(metric='nll', temperature=0.1)
    """
    method = find(family, stem)
    names = [field.name for field in dataclasses.fields(method) if field.init]
    for name in fields:
        if name not in names:
            raise HyperparameterError(f"{family}/{stem} has no field {name!r}. {_suggestion(name, names)}")
    declared = _declared(family, stem)
    for name, value in fields.items():
        if declared.get(name) is bool and not conforms(value, bool):
            raise HyperparameterError(f"`{name}` should be {readable(bool)}. Found `{name} = {value!r}`.")
    try:
        return method(**fields)
    except TypeError as error:  # a value that cannot be compared, such as text for a number
        given = ", ".join(f"{name} = {value!r}" for name, value in fields.items())
        raise HyperparameterError(f"A field of {family}/{stem} has a wrong type ({error}). Found {given}.") from error


@functools.cache
def _declared(family: str, stem: str) -> Mapping[str, Any]:
    return hints(find(family, stem))


@functools.cache
def _modules(family: str) -> list[str]:
    package = importlib.import_module(f"transfuse.strategy.{family}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def _concrete(family: str, stem: str) -> type[Any] | None:
    base = f"transfuse.strategy.{family}.base"
    module = importlib.import_module(f"transfuse.strategy.{family}.{stem}")
    for candidate in vars(module).values():
        if (
            inspect.isclass(candidate)
            and candidate.__module__ == module.__name__
            and not inspect.isabstract(candidate)
            and any(parent.__module__ == base for parent in candidate.__mro__[1:])
        ):
            return candidate
    return None


def _suggestion(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=3)
    if nearest:
        return f"Did you mean {' or '.join(nearest)}?"
    return f"It has {', '.join(known)}." if known else "It has none."
