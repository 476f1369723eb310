"""What tells the runs of a sweep apart: the settings that differ among them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name
from typing import Any

Settings = dict[str, str]


def differing(nodes: Sequence[Any], ignore: frozenset[str] = frozenset()) -> list[Settings]:
    """For each of several configs the entries that are not the same in all: dotted key to value, as text.

    A part that is built from another class (`_target_`) is named by that class (`weights=nll_optimal`); its fields are
    compared only among parts of the same class. Keys named `seed` never count.

    Args:
        nodes: one config (part) a run, plain values.
        ignore: keys of the outermost level that do not count.

    Example:
        >>> differing([{"accept": "better", "size": 3}, {"accept": "equal", "size": 3}])
        [{'accept': 'better'}, {'accept': 'equal'}]
    """
    found: list[Settings] = [{} for _ in nodes]
    if all(node == nodes[0] for node in nodes):
        return found
    targets = [node.get("_target_", "") if isinstance(node, Mapping) else None for node in nodes]
    if len(set(targets)) > 1 or None in targets:
        found = [{"": _shown(node)} for node in nodes]
    for target in dict.fromkeys(target for target in targets if target is not None):
        positions = [index for index, other in enumerate(targets) if other == target]
        same = [nodes[index] for index in positions]
        for key in dict.fromkeys(key for node in same for key in node if key not in ignore and key != "seed"):
            for index, inner in zip(positions, differing([node.get(key) for node in same]), strict=True):
                found[index] |= {f"{key}.{name}" if name else key: value for name, value in inner.items()}
    return found


def joined(name: str, settings: Settings, prefix: str = "") -> str:
    """A label: the name, then `key=value` of each setting.

    Example:
        >>> joined("weight_fusion/greedy_soup", {"accept": "better"})
        'weight_fusion/greedy_soup accept=better'
    """
    return " ".join([name, *(f"{prefix}{key}={value}" for key, value in settings.items())])


def _shown(node: Any) -> str:
    if isinstance(node, Mapping) and "_target_" in node:
        return _named(str(node["_target_"]))
    return node if isinstance(node, str) else json.dumps(node, separators=(",", ":"), default=str)


def _named(target: str) -> str:
    """The stem of the class's file where the class is named like it (`MMoE`: `mmoe`), else of the class alone."""
    class_name = target.rpartition(".")[2]
    try:
        stem = str(resolve_name(target).__module__).rpartition(".")[2]
    except (ImportError, AttributeError):  # of another version, or on another machine
        stem = class_name
    if class_name.lower().startswith(stem.replace("_", "")):
        return stem
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()
