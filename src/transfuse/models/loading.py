"""The single door for weights into a network: every tensor is accounted for.

`load` takes what fits and reports the rest (transfer); `load_strict` takes all or nothing (base models).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from transfuse.models.checks import require
from transfuse.models.key_names import KeyMap, match_names
from transfuse.models.load_plan import plan_load, tensors_of
from transfuse.models.load_report import LoadReport, explain_coverage
from transfuse.models.state_files import open_state, require_finite
from transfuse.types import CoverageError, StateDictError, StateDictMismatch


def load(
    source_state: str | Path | Mapping[str, Any],
    network: nn.Module,
    *,
    key_map: KeyMap | None = None,
    min_coverage: float = 0.5,
    reset: bool = False,
) -> LoadReport:
    """Loads into `network`, in place, every tensor of the source that fits it.

    Names: prefixes of wrappers that all keys share do not matter; then `key_map`. Shapes: equal, or adapted by a rule:
    `input_channels` for the first convolution, `position_embedding` for another square grid of patches. A head is
    loaded whole or not at all: `heads.<task>.*`, or what the network's `groups()` name last. On any error the network
    is as it was before.

    Args:
        source_state: a state dict, a mapping that holds one (`state_dict_ema`, `model_ema`, `ema`, `state_dict`,
            `model`; the first found), or the path of a `.safetensors`, `.pt` or `.ckpt` file.
        network: of any class; changed in place, shares no storage with the source.
        key_map: list of rules `{"pattern": regular expression, "replace": text}` for source names; the first wins.
        min_coverage: smallest share, in [0, 1], of the backbone's elements (all but the heads') that has to be loaded.
        reset: whether all parameters are drawn anew (from torch's global stream) before loading, so that what is not
            loaded does not depend on the past; otherwise it keeps its values.

    Returns:
        Every source key and every target key, and what became of it.

    Raises:
        CoverageError: when too little fits.
        KeyMapError: when a rule renames nothing, or two source keys land on one target.
        NonFiniteError: when the source holds NaN or infinite values.
        StateDictError: when the source cannot be read or the network not be reset.

    Example:
        >>> report = load(network.state_dict(), network)
        >>> report.coverage
        1.0
    """
    require(0 <= min_coverage <= 1, "min_coverage", "in [0, 1]", min_coverage)
    state, container = open_state(source_state)
    require_finite(state, source="the source" if isinstance(source_state, Mapping) else str(source_state))
    report, values = plan_load(state, network, key_map, container)
    if report.coverage < min_coverage:
        raise CoverageError(explain_coverage(report, min_coverage))
    if reset:
        values = {name: value.clone() for name, value in values.items()}  # the source may be this network's own state
        reset_parameters(network)
    _copy(values, tensors_of(network))
    return report


def load_strict(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads `state` into `network`, in place: every tensor, or nothing.

    Args:
        network: gets the weights.
        state: key -> tensor; prefixes of wrappers that all keys share do not matter.
        source: what the messages call the state, such as a path.

    Raises:
        StateDictMismatch: when tensors are missing, extra, of another shape or kind of number; lists up to five.
        NonFiniteError: when the state holds NaN or infinite values.
    """
    require_finite(state, source=source)
    targets = tensors_of(network)
    values = {name: state[key] for key, name in match_names(state, targets, None).items()}
    names = [*targets, *(name for name in values if name not in targets)]
    faults = [fault for name in names if (fault := _fault(name, values.get(name), targets.get(name)))]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise StateDictMismatch(f"{source} does not fit the network: {'; '.join(faults[:5])}{more}.")
    _copy(values, targets)


@runtime_checkable
class Resettable(Protocol):
    """A module that can draw its own parameters anew, as torch's linear, convolution and norm layers can."""

    def reset_parameters(self) -> None:
        """Draws the parameters from torch's global stream."""


def reset_parameters(network: nn.Module) -> None:
    """Draws all parameters anew, in place, module by module in the network's order.

    Raises:
        StateDictError: before anything is changed, when a module owns parameters but has no `reset_parameters`.
    """
    for name, module in network.named_modules():
        if not isinstance(module, Resettable) and list(module.parameters(recurse=False)):
            raise StateDictError(
                f"`{name}` ({type(module).__name__}) owns parameters but has no `reset_parameters()`, so that "
                f"`reset=True` cannot draw them anew. Add that method, or load into a newly built network."
            )
    for module in network.modules():
        if isinstance(module, Resettable):
            module.reset_parameters()


def _fault(name: str, value: Tensor | None, target: Tensor | None) -> str:
    if value is None:
        return f"`{name}` is missing"
    if target is None:
        return f"`{name}` of shape {tuple(value.shape)} is not in the network"
    if value.shape != target.shape:
        return f"`{name}` has shape {tuple(value.shape)} instead of {tuple(target.shape)}"
    if value.is_floating_point() != target.is_floating_point():
        return f"`{name}` holds {value.dtype} instead of {target.dtype}"
    return ""


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)
