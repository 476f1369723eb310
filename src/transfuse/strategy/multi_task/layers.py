"""Groups of parameters that belong together, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def layer_of(parameter: str) -> str:
    """The module that a parameter belongs to.

    Example:
        >>> layer_of("backbone.0.weight")
        'backbone.0'
    """
    return parameter.rpartition(".")[0]


def by_layer(parameters: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Layer -> its parameters, in order.

    Example:
        >>> by_layer(["0.weight", "0.bias", "1.weight"])
        {'0': ('0.weight', '0.bias'), '1': ('1.weight',)}
    """
    groups: dict[str, tuple[str, ...]] = {}
    for name in parameters:
        groups[layer_of(name)] = (*groups.get(layer_of(name), ()), name)
    return groups
