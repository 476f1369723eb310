"""Whether plain config values fit the type annotations of what they are for."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from transfuse.types import HyperparameterError


def hints(target: Any) -> dict[str, Any]:
    """Parameter name -> annotation, of a class's constructor or a function; empty where they cannot be read."""
    try:
        return get_type_hints(target)
    except (NameError, TypeError):
        return {}


def with_key(message: str, key: str) -> str:
    """A hyper-parameter's message with its fields named by their full keys.

    Example:
        >>> with_key("`lr` should be > 0. Found `lr = -1`.", "training")
        '`training.lr` should be > 0. Found `training.lr = -1`.'
        >>> with_key("`weights.values` should be finite.", "strategy.weights")
        '`strategy.weights.values` should be finite.'
    """
    part = key.rpartition(".")[2]  # a component names its fields by its own key too
    names = set(re.findall(r"`([A-Za-z_][\w.]*) = ", message)) or set(re.findall(r"`([A-Za-z_][\w.]*)`", message)[:1])

    def renamed(match: re.Match[str]) -> str:
        return f"`{key}.{match[1].removeprefix(f'{part}.')}{match[2]}" if match[1] in names else match[0]

    return re.sub(r"`([A-Za-z_][\w.]*)( = |`)", renamed, message)


@contextmanager
def under(key: str) -> Iterator[None]:
    """Hyper-parameters that are refused in the block are named by their full keys."""
    try:
        yield
    except HyperparameterError as error:
        raise HyperparameterError(with_key(str(error), key)) from error


def conforms(value: Any, hint: Any) -> bool:
    """Whether `value` may be given where `hint` is declared: an int is a float, a list is a tuple.

    Only plain types, unions of them, `Literal`, sequences and mappings are judged; any other hint takes everything.

    Example:
        >>> conforms(1, float), conforms("a", float), conforms([1, 2], tuple[int, ...]), conforms(True, int)
        (True, False, True, False)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(conforms(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (tuple, list):
        item = arguments[0] if arguments else Any
        return isinstance(value, (list, tuple)) and all(conforms(entry, item) for entry in value)
    if origin is dict or origin is Mapping:
        return isinstance(value, Mapping) and all(conforms(entry, arguments[1]) for entry in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint is type(None):
        return value is None
    return True


def floated(value: Any, hint: Any) -> Any:
    """The value with integers made floats where only floats are declared, so that 1 and 1.0 mean one recipe."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(value, int) and not isinstance(value, bool):
        declared = arguments if origin in (Union, types.UnionType) else (hint,)
        return float(value) if float in declared and int not in declared else value
    if isinstance(value, (list, tuple)) and origin in (tuple, list) and arguments:
        return [floated(entry, arguments[0]) for entry in value]
    return value


def readable(hint: Any) -> str:
    """A type annotation in words.

    Example:
        >>> readable(float | None), readable(Literal["a", "b"])
        ('a number or null', 'a or b')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(readable(argument) for argument in arguments)
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (tuple, list):
        return f"a list ({readable(arguments[0])} each)" if arguments else "a list"
    names: dict[Any, str] = {
        float: "a number",
        int: "an integer",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(hint, "a mapping" if origin in (dict, Mapping) else str(hint))
