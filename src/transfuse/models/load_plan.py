"""Decides what becomes of every tensor, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from transfuse.models.adaptation import adapt, first_convolution
from transfuse.models.key_names import KeyMap, match_names
from transfuse.models.load_report import HEADS, LoadReport, TensorPair, share_loaded


def plan_load(
    state: Mapping[str, Tensor], network: nn.Module, key_map: KeyMap | None, container: str
) -> tuple[LoadReport, dict[str, Tensor]]:
    """The report, and target key -> value (in the target's shape) of what is to be copied."""
    targets = tensors_of(network)
    names = match_names(state, targets, key_map)
    sources = {name: key for key, name in names.items() if name in targets}
    heads = _unfit_heads({name: state[key] for key, name in names.items()}, targets)
    pairs, values = _judge(state, sources, targets, heads, first_convolution(network))
    elements = _elements(targets)
    matched = [*pairs["matched"], *_tied(targets, sources, values)]
    found = {pair.target for pair in matched} | set(sources)
    missing = {key: elements[key] for key in targets if key not in found}
    return (
        LoadReport(
            matched=tuple(matched),
            adapted=tuple(pairs["adapted"]),
            dropped=tuple(pairs["dropped"]),
            missing=missing,
            unexpected={key: state[key].numel() for key in sorted(names) if names[key] not in targets},
            coverage=share_loaded((*matched, *pairs["adapted"]), tuple(pairs["dropped"]), missing),
            container=container,
        ),
        values,
    )


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """State dict key -> the network's own tensor (tied names share one)."""
    state = network.state_dict(keep_vars=True)
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _judge(
    state: Mapping[str, Tensor],
    sources: Mapping[str, str],
    targets: Mapping[str, Tensor],
    heads: Mapping[str, str],
    first: str,
) -> tuple[dict[str, list[TensorPair]], dict[str, Tensor]]:
    """Pairs under `matched`, `adapted`, `dropped`, in the network's order, and the values to copy."""
    elements = _elements(targets)
    pairs: dict[str, list[TensorPair]] = {"matched": [], "adapted": [], "dropped": []}
    values: dict[str, Tensor] = {}
    by_tensor: dict[int, str] = {}
    for name, target in targets.items():
        if name not in sources:
            continue
        value = state[sources[name]]
        fitted = None if _head(name) in heads else adapt(name, value, target, first_convolution=first)
        owner = by_tensor.setdefault(id(target), name)
        if fitted is None:
            outcome, how = "dropped", heads.get(_head(name), _difference(value, target))
        elif owner in values and not torch.equal(values[owner], fitted[1]):
            outcome, how = "dropped", f"tied to `{owner}`, which has other values in the source"
        else:
            outcome, how = ("matched" if fitted[0] == "equal" else "adapted"), fitted[0]
            values[name] = fitted[1]
        pair = TensorPair(source=sources[name], target=name, how=how, elements=elements[name])
        pairs[outcome].append(pair)
    return pairs, values


def _tied(targets: Mapping[str, Tensor], sources: Mapping[str, str], values: Mapping[str, Tensor]) -> list[TensorPair]:
    """Targets that no source key names, but that share their tensor with one that is loaded."""
    elements = _elements(targets)
    owners = {id(targets[name]): name for name in values}
    return [
        TensorPair(source=sources[owners[id(target)]], target=name, how="tied", elements=elements[name])
        for name, target in targets.items()
        if name not in sources and id(target) in owners
    ]


def _elements(targets: Mapping[str, Tensor]) -> dict[str, int]:
    """Elements that count: none for integer buffers and for the further names of a tied tensor."""
    seen: set[int] = set()
    elements = {}
    for name, target in targets.items():
        counts = target.is_floating_point() and id(target) not in seen
        elements[name] = target.numel() if counts else 0
        seen.add(id(target))
    return elements


def _unfit_heads(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, str]:
    """Heads of the network that differ from the source's in any tensor, and why: they are not loaded at all."""
    unfit: dict[str, str] = {}
    for name in (*targets, *values):
        head = _head(name)
        if name not in values:
            reason = f"the source's head has no `{name.removeprefix(head)}`"
        elif name not in targets:
            reason = f"the network's head has no `{name.removeprefix(head)}`"
        elif values[name].shape != targets[name].shape:
            reason = f"another head: {_difference(values[name], targets[name])}"
        else:
            continue
        unfit.setdefault(head, reason)
    return {head: reason for head, reason in unfit.items() if head}


def _head(name: str) -> str:
    """`heads.<task>.` of a head's tensor, empty for the backbone's."""
    if not name.startswith(HEADS):
        return ""
    return f"{HEADS}{name.removeprefix(HEADS).partition('.')[0]}."


def _difference(value: Tensor, target: Tensor) -> str:
    if value.shape == target.shape:
        return f"{value.dtype} in the source, {target.dtype} in the network"
    return f"shape {tuple(value.shape)} in the source, {tuple(target.shape)} in the network"
