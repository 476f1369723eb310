"""What strategies that change widths share: sizes, the source as a network, the target network, the check."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from transfuse.models.architecture import Architecture
from transfuse.models.loading import load
from transfuse.models.network import head_names
from transfuse.models.predict import predict
from transfuse.models.widths import WidthGroup
from transfuse.suggest import nearest
from transfuse.types import Development, HyperparameterError, PreservationError, UnsupportedStructureError

_EXAMPLES = 64


def new_sizes(groups: Sequence[WidthGroup], factor: float, widths: Mapping[str, Any] | None) -> dict[str, int]:
    """Group name -> its new size, by `factor` or by the sizes of the recipe's fields."""
    if widths is not None:
        _check_widths(groups, widths)
    found = {}
    for group in groups:
        if widths is None:
            wanted = max(1, round(group.size * factor))
            if group.whole and wanted % group.size:
                raise UnsupportedStructureError(
                    f"`{group.name}` is a stream under LayerNorm, which only whole multiples leave as they are. "
                    f"Found {group.size} and {wanted}. Did you mean factor=2?"
                )
        else:
            value = widths.get(group.field, group.size)
            wanted = int(value if isinstance(value, int) else value[group.index])
        found[group.name] = wanted
    return found


def _check_widths(groups: Sequence[WidthGroup], widths: Mapping[str, Any]) -> None:
    """Raises unless each entry names a field of the model and has a number for each of its widths."""
    if any(group.whole for group in groups):
        raise UnsupportedStructureError("A transformer's widths depend on one another. Did you mean `factor`?")
    lengths: dict[str, int | None] = {}
    for group in groups:
        before = lengths.get(group.field) or 0
        lengths[group.field] = None if group.index is None else max(before, group.index + 1)
    for field, value in widths.items():
        if field not in lengths:
            raise HyperparameterError(
                f"`widths` should name sizes of the model. Found `{field}`.{nearest(field, lengths)}"
            )
        found = None if isinstance(value, int) else len(value)
        if found != lengths[field]:
            rule = "a number" if lengths[field] is None else f"{lengths[field]} numbers"
            raise HyperparameterError(f"`widths.{field}` should be {rule}. Found `widths.{field} = {value}`.")


def resized(architecture: Architecture, groups: Sequence[WidthGroup], sizes: Mapping[str, int]) -> Architecture:
    """The architecture with these widths."""
    fields: dict[str, Any] = {}
    for group in groups:
        if group.field == "mlp_ratio":
            continue  # a ratio to the width stays
        if group.index is None:
            fields[group.field] = sizes[group.name]
        else:
            fields.setdefault(group.field, {})[group.index] = sizes[group.name]
    lists = {
        name: [value[index] for index in sorted(value)] if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return architecture.resized(**lists)


def target_network(
    architecture: Architecture, state: Mapping[str, Tensor], target: Development, generator: torch.Generator
) -> nn.Module:
    """A network of the architecture with the target's fresh heads and the state's backbone."""
    network = architecture.build(target.input_shape, target.tasks, generator)
    heads = head_names(network)
    load({key: value for key, value in state.items() if key not in heads and not key.startswith("heads.")}, network)
    return network


def source_like(architecture: Architecture, state: Mapping[str, Tensor], target: Development) -> nn.Module:
    """A network of the architecture with the source's tasks and these weights."""
    assert target.source is not None, "the problem is a transfer problem"
    network = architecture.build(target.input_shape, target.source.tasks, torch.Generator())
    network.load_state_dict(dict(state))
    return network.eval()


def preservation_error(before: nn.Module, after: nn.Module, target: Development, *, exact: bool) -> float:
    """Max |f'(x) - f(x)| over tasks and the first 64 validation inputs.

    Raises:
        PreservationError: it is above `1e-4 max(1, max |f|)`, where it has to be `exact`.
    """
    inputs = target.validation.inputs[:_EXAMPLES]
    first, second = predict(before, inputs), predict(after, inputs)
    error = max(float((first[name] - second[name]).abs().max()) for name in first)
    size = max(float(value.abs().max()) for value in first.values())
    if exact and not error <= 1e-4 * max(1.0, size):
        raise PreservationError(
            f"The network should compute what it did before. Found outputs that differ by {error:.3g}."
        )
    return error


def require_factor(name: str, factor: float, *, least: float, most: float) -> None:
    """Raises `HyperparameterError` unless the factor is within its range."""
    if not (math.isfinite(factor) and least <= factor <= most) or factor == 0:
        rule = "at least 1" if most == math.inf else "in (0, 1]"
        raise HyperparameterError(f"`{name}` should be {rule}. Found `{name} = {factor}`.")


def count(network: nn.Module) -> int:
    """Parameters."""
    return sum(value.numel() for value in network.parameters())
