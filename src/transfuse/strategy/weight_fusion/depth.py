"""Parts of a network by depth: embedding, thirds of the depth, head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from transfuse.models.network import Grouped

_THIRDS = ("early", "middle", "late")


def depth_parts(network: nn.Module, keys: Sequence[str]) -> dict[str, str]:
    """Key -> `embedding`, `early`, `middle`, `late` or `head`.

    A network that knows its groups: its stem, the thirds of the groups between, its last group. Any other network: the
    thirds of the keys in their order. Keys of no group (buffers) belong with the key before them.

    Args:
        network: whose keys they are.
        keys: in order, from input to output.

    Example:
        >>> depth_parts(nn.Identity(), ["a", "b", "c"])
        {'a': 'early', 'b': 'middle', 'c': 'late'}
    """
    groups = network.groups() if isinstance(network, Grouped) else []
    if not groups:
        return {key: _third(index, len(keys)) for index, key in enumerate(keys)}
    inner = [name for name, _ in groups[:-1] if name != "stem"]
    part_of = {name: _third(index, len(inner)) for index, name in enumerate(inner)}
    part_of |= {"stem": "embedding", groups[-1][0]: "head"}
    named = {parameter: part_of[name] for name, parameters in groups for parameter in parameters}
    found: dict[str, str] = {}
    part = part_of[groups[0][0]]
    for key in keys:
        part = named.get(key, part)
        found[key] = part
    return found


def _third(index: int, count: int) -> str:
    return _THIRDS[index * len(_THIRDS) // count]
