"""Decides what becomes of every tensor, before anything is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile

import torch
from torch import Tensor, nn

from transfuse.models.adaptation import adapt, first_convolution
from transfuse.models.key_names import KeyMap, match_names
from transfuse.models.load_report import LoadReport, TensorPair, share_loaded
from transfuse.models.network import Grouped, head_names

_HEADS = "heads."


def plan_load(
    state: Mapping[str, Tensor], network: nn.Module, key_map: KeyMap | None, container: str
) -> tuple[LoadReport, dict[str, Tensor]]:
    """The report, and target key -> value (in the target's shape) of what is to be copied."""
    targets = tensors_of(network)
    names = match_names(state, targets, key_map)
    sources = {name: key for key, name in names.items() if name in targets}
    head_of = _heads(network, targets, names.values())
    unfit = _unfit_heads(head_of, {name: state[key] for key, name in names.items()}, targets)
    pairs, values = _judge(state, sources, targets, unfit, first_convolution(network))
    elements = _elements(targets)
    matched = [*pairs["matched"], *_tied(targets, sources, values)]
    found = {pair.target for pair in matched} | set(sources)
    loaded = [pair.target for pair in (*matched, *pairs["adapted"])]
    head = frozenset(head_of) & targets.keys()
    return (
        LoadReport(
            matched=tuple(matched),
            adapted=tuple(pairs["adapted"]),
            dropped=tuple(pairs["dropped"]),
            missing={key: elements[key] for key in targets if key not in found},
            unexpected={key: state[key].numel() for key in sorted(names) if names[key] not in targets},
            coverage=share_loaded(loaded, elements, head),
            container=container,
            head=head,
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
    unfit: Mapping[str, str],
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
        fitted = None if name in unfit else adapt(name, value, target, first_convolution=first)
        owner = by_tensor.setdefault(id(target), name)
        if fitted is None:
            outcome, how = "dropped", unfit.get(name) or _difference(value, target)
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


def _heads(network: nn.Module, targets: Collection[str], names: Iterable[str]) -> dict[str, str]:
    """Names in a head, of the network or of the source -> the prefix of that head.

    Heads of several tasks (`heads.<task>.`) are heads of their own. A module without groups has those alone.
    """
    declared = head_names(network) if isinstance(network, Grouped) else None
    head = [name for name in targets if (name.startswith(_HEADS) if declared is None else name in declared)]
    prefix_of = {name: _task_head(name) or _common_prefix(head) for name in head}
    prefixes = tuple(dict.fromkeys(prefix_of.values()))
    for name in (name for name in names if name not in targets):
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), _task_head(name))
        if prefix:
            prefix_of[name] = prefix
    return prefix_of


def _task_head(name: str) -> str:
    return f"{_HEADS}{name.removeprefix(_HEADS).partition('.')[0]}." if name.startswith(_HEADS) else ""


def _common_prefix(names: Iterable[str]) -> str:
    """The dotted prefix that all names share, such as `module.head.`."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{column[0]}." for column in takewhile(lambda column: len(set(column)) == 1, columns))


def _unfit_heads(
    head_of: Mapping[str, str], values: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> dict[str, str]:
    """Tensors of heads that differ from the source's in any tensor, and why: such a head is not loaded at all."""
    reasons: dict[str, str] = {}
    for name, head in head_of.items():
        if name not in values:
            reason = f"the source's head has no `{name.removeprefix(head)}`"
        elif name not in targets:
            reason = f"the network's head has no `{name.removeprefix(head)}`"
        elif values[name].shape != targets[name].shape:
            reason = f"another head: {_difference(values[name], targets[name])}"
        else:
            continue
        reasons.setdefault(head, reason)
    return {name: reasons[head] for name, head in head_of.items() if head in reasons}


def _difference(value: Tensor, target: Tensor) -> str:
    if value.shape == target.shape:
        return f"{value.dtype} in the source, {target.dtype} in the network"
    return f"shape {tuple(value.shape)} in the source, {tuple(target.shape)} in the network"
