"""Values that may differ from layer to layer: a number, anchors over depth, or filters by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor

from transfuse.leaves import LEAF
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.merging import Survey, TensorMethod
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError

# A number; anchors, one or more; or filters, mappings with `value` (a number or anchors) and all but the last `filter`.
PerLayer = float | tuple[float, ...] | tuple[Mapping[str, Any], ...]

_INDEX = re.compile(r"(?:^|(?<=\.))(\d+)(?=\.|$)")
_BEFORE = re.compile(r"(stem|shared|wte|wpe|class_token|cls_token|pre_?\w*norm|ln_pre|\w*embed\w*)$", re.IGNORECASE)
_AFTER = re.compile(r"(neck|ln_f|ln_post|ln_final|fc|pooler|score|classifier|\w*heads?|\w*norm)$", re.IGNORECASE)


def canonical(value: Any, name: str) -> PerLayer:
    """The value with tuples for lists, its form checked.

    Args:
        value: a number, a list of numbers, or a list of filters.
        name: of the field, for messages.

    Raises:
        HyperparameterError: another form, no finite number, no entry, or a filter that hides those after it.

    Example:
        >>> canonical([0, 0.5], "t")
        (0, 0.5)
    """
    if _is_number(value):
        return float(value)
    if not isinstance(value, (list, tuple)) or not value:
        raise HyperparameterError(
            f"`{name}` should be a number, a list of numbers, or a list of filters such as "
            f"{{filter: self_attn, value: 0.5}}. Found `{name} = {value!r}`."
        )
    if not any(isinstance(entry, Mapping) for entry in value):
        return _anchors(value, name)
    for position, entry in enumerate(value):
        _check_entry(entry, name, last=position == len(value) - 1)
    return tuple(
        {**entry, "value": found if _is_number(found := entry["value"]) else _anchors(found, name)} for entry in value
    )


def numbers(value: PerLayer) -> list[float]:
    """All numbers of a canonical value, for the check of their range.

    Example:
        >>> numbers(({"filter": "mlp", "value": (0.0, 1.0)}, {"value": 0.5}))
        [0.0, 1.0, 0.5]
    """
    if isinstance(value, (int, float)):
        return [value]
    return [
        number for entry in value for number in (numbers(entry["value"]) if isinstance(entry, Mapping) else [entry])
    ]


def resolve(value: PerLayer, keys: Sequence[str], name: str) -> dict[str, float]:
    """The number of every tensor.

    A list is a piecewise linear function of depth: its anchors lie at equal distances from 0 to 1, and layer l of L has
    depth l / (L - 1). The layer is the first number in a tensor's name (`model.layers.3.mlp.weight`), and L the largest
    one plus 1 among names with the same text before it. Names without a number are recognized by their parts: stems and
    embeddings come first (depth 0); final norms, necks and heads last (depth 1). Of filters the first one that matches
    a name gives the number; one with `*`, `?` or `[` is a pattern for the whole name, any other a part of it.

    Args:
        value: canonical.
        keys: of the tensors.
        name: of the field, for messages.

    Raises:
        HyperparameterError: a filter matches no name, a name matches no filter, or a list meets a name without depth.

    Example:
        >>> resolve((0.0, 1.0), ["embed", "layers.0.w", "layers.1.w", "layers.2.w", "head"], "t")
        {'embed': 0.0, 'layers.0.w': 0.0, 'layers.1.w': 0.5, 'layers.2.w': 1.0, 'head': 1.0}
    """
    values = _values(value, keys, name)
    depths = _depths(keys)
    return {key: _at(found, depths[key], key, name) for key, found in values.items()}


@dataclass(frozen=True, kw_only=True)
class PerTensor:
    """A method whose hyper-parameters differ between tensors.

    Attributes:
        methods: key -> the method with this tensor's values.
    """

    methods: Mapping[str, TensorMethod]
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> PerTensor:
        """Knows all tensors already."""
        return self

    def survey(self, blocks: Blocks) -> Survey | None:
        """As the tensor's method surveys it."""
        return self.methods[blocks.key].survey(blocks)

    def fuse_block(self, block: Block, survey: Survey) -> Tensor:
        """As the tensor's method fuses it, (B,)."""
        return self.methods[block.key].fuse_block(block, survey)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _anchors(value: Any, name: str) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(map(_is_number, value)):
        raise HyperparameterError(f"`{name}` should hold finite numbers. Found `{name} = {value!r}`.")
    return tuple(value)


def _check_entry(entry: Any, name: str, *, last: bool) -> None:
    if not isinstance(entry, Mapping) or "value" not in entry or set(entry) - {"filter", "value"}:
        raise HyperparameterError(
            f"`{name}` should hold filters with the keys filter and value. Found `{name} = {entry!r}`."
        )
    if entry.get("filter") is None and not last:
        raise HyperparameterError(f"`{name}` should have a filter in all entries but the last. Found {dict(entry)}.")
    if not isinstance(entry.get("filter", ""), (str, type(None))):
        raise HyperparameterError(f"`{name}` should have a text as filter. Found {dict(entry)}.")


def _values(value: PerLayer, keys: Sequence[str], name: str) -> dict[str, float | tuple[float, ...]]:
    """The number or the anchors of every tensor."""
    if isinstance(value, (int, float)):
        return dict.fromkeys(keys, value)
    entries = [entry for entry in value if isinstance(entry, Mapping)]
    if not entries:
        return dict.fromkeys(keys, numbers(value)[0] if len(value) == 1 else tuple(numbers(value)))
    for pattern in (entry.get("filter") for entry in entries):
        if pattern is not None and not any(_matches(pattern, key) for key in keys):
            raise HyperparameterError(
                f"A filter of `{name}` should match names of fused tensors. Found `{pattern}`, which matches none."
                f"{nearest(pattern, keys)}"
            )
    return {key: _first_match(entries, key, name) for key in keys}


def _first_match(entries: Sequence[Mapping[str, Any]], key: str, name: str) -> float | tuple[float, ...]:
    for entry in entries:
        if entry.get("filter") is None or _matches(entry["filter"], key):
            found: float | tuple[float, ...] = entry["value"]
            return found
    raise HyperparameterError(f"No filter of `{name}` matches `{key}`. Add a last entry {{value: ...}} for the rest.")


def _matches(pattern: str, key: str) -> bool:
    return fnmatchcase(key, pattern) if re.search(r"[*?[]", pattern) else pattern in key


def _depths(keys: Sequence[str]) -> dict[str, float | None]:
    """Depth in [0, 1] of every tensor; None where it is unknown."""
    numbered = {key: (key[: found.start()], int(found[1])) for key in keys if (found := _INDEX.search(key))}
    last: dict[str, int] = {}
    for prefix, layer in numbered.values():
        last[prefix] = max(last.get(prefix, 0), layer)
    return {key: _depth(key, *numbered.get(key, (key, 0)), last) for key in keys}


def _depth(key: str, prefix: str, layer: int, last: Mapping[str, int]) -> float | None:
    parts = [part for part in prefix.split(".") if part]
    if any(_BEFORE.match(part) for part in parts):
        return 0.0
    if any(_AFTER.match(part) for part in parts):
        return 1.0
    # l / (L - 1)
    return layer / last[prefix] if last.get(prefix, 0) > 0 else None


def _at(value: float | tuple[float, ...], depth: float | None, key: str, name: str) -> float:
    """The piecewise linear function through the anchors at a depth."""
    if not isinstance(value, tuple):
        return value
    if depth is None:
        raise HyperparameterError(
            f"`{name}` is a list over depth, and the depth of `{key}` is unknown: its name has no layer number among "
            f"several. Did you mean a filter, {name}=[{{filter: {key}, value: 0.5}}, {{value: {list(value)}}}]?"
        )
    position = depth * (len(value) - 1)
    lower = min(int(position), len(value) - 2)
    share = position - lower
    return value[lower] if share == 0 else (1 - share) * value[lower] + share * value[lower + 1]
