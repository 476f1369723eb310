"""`structure_transfer/net2deeper`: more layers, the same function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModel
from transfuse.models.architecture import Architecture
from transfuse.models.features import require_network
from transfuse.models.network import Network
from transfuse.models.resnet import ResidualBlock
from transfuse.models.vit import Block
from transfuse.strategy.structure_transfer.base import Grown, StructureTransfer
from transfuse.strategy.structure_transfer.resizing import count, preservation_error, source_like, target_network
from transfuse.types import Development, HyperparameterError, PreservationError, Task, UnsupportedStructureError

_LAST_OF_BLOCK = ("attention.out.weight", "attention.out.bias", "mlp.2.weight", "mlp.2.bias")


@dataclass(frozen=True, kw_only=True)
class Net2Deeper(StructureTransfer):
    """A new layer after stages of the backbone that changes nothing at first.

    A fully connected network gets identity layers, which ReLU lets pass. A residual network gets blocks whose last
    scale is zero, a transformer blocks whose two last projections are zero.

    Attributes:
        positions: stages, from 0, after which (in a residual network: in which) one is added; none: all.
        kind: `identity`, `residual`, or `auto`: what the network allows.

    Reference:
        Chen et al. 2016, "Net2Net", 1511.05641.
    """

    positions: Sequence[int] = ()
    kind: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(self.positions))
        if self.kind not in ("auto", "identity", "residual"):
            raise HyperparameterError(f"`kind` should be auto, identity or residual. Found `kind = {self.kind}`.")

    def grow(self, source: BaseModel, target: Development, generator: torch.Generator) -> Grown:
        """The deepened network with fresh heads."""
        before = require_network(source.network(), self.name)
        num_stages = len(before.backbone.stages)
        positions = sorted(set(self.positions or range(num_stages)))
        if not all(0 <= position < num_stages for position in positions):
            raise HyperparameterError(
                f"`positions` should be in [0, {num_stages - 1}]. Found `positions = {list(self.positions)}`."
            )
        architecture, origin = self._deeper(source.architecture, before, positions)
        network = require_network(architecture.build(target.input_shape, _tasks(target), generator), self.name)
        state = _filled(network, before, origin)
        after = source_like(architecture, state, target)
        error = preservation_error(before, after, target, exact=True)
        report = {
            "positions": positions,
            "parameters_before": count(before),
            "parameters_after": count(after),
            "preservation_error": error,
        }
        return Grown(network=target_network(architecture, state, target, generator), report=report)

    def _deeper(
        self, architecture: Architecture, network: Network, positions: Sequence[int]
    ) -> tuple[Architecture, dict[str, str | None]]:
        """The deeper architecture; prefix of each layer there -> its prefix here, None for new ones."""
        stages = list(network.backbone.stages)
        first = stages[0]
        if isinstance(first, Block):
            self._require("residual", "transformer")
            origin = _shifted(len(stages), positions)
            return architecture.resized(depth=len(origin)), origin
        if isinstance(first, nn.Sequential) and isinstance(first[0], ResidualBlock):
            self._require("residual", "residual network")
            sizes = [len(list(stage.children())) for stage in stages]
            blocks = [size + (index in positions) for index, size in enumerate(sizes)]
            kept = [(stage, place, place < sizes[stage]) for stage, size in enumerate(blocks) for place in range(size)]
            inside = {
                prefix: prefix if old else None
                for stage, place, old in kept
                for prefix in (f"backbone.stages.{stage}.{place}.",)
            }
            return architecture.resized(blocks=blocks), inside
        if isinstance(first, nn.Sequential) and isinstance(first[0], nn.Linear):
            if self.kind == "residual":
                raise UnsupportedStructureError(
                    "A fully connected network has no residual blocks. Did you mean kind=auto?"
                )
            if not isinstance(first[1], nn.ReLU):
                raise PreservationError(
                    f"An identity layer changes nothing where the activation leaves its own outputs alone. Found "
                    f"{type(first[1]).__name__}. Did you mean model.activation=relu, or a residual network?"
                )
            widths = [stage.get_submodule("0").get_parameter("weight").shape[0] for stage in stages]
            origin = _shifted(len(stages), positions)
            sizes = [width for index, width in enumerate(widths) for _ in range(1 + (index in positions))]
            return architecture.resized(widths=sizes), origin
        raise UnsupportedStructureError(
            "Each stage of this network pools or changes its inputs' shape, so no layer fits in between. "
            "Did you mean model=mlp, resnet or vit?"
        )

    def _require(self, kind: str, what: str) -> None:
        if self.kind not in ("auto", kind):
            raise UnsupportedStructureError(f"A {what} is deepened by {kind} blocks. Did you mean kind={kind}?")


def _tasks(target: Development) -> tuple[Task, ...]:
    assert target.source is not None, "the problem is a transfer problem"
    return target.source.tasks


def _shifted(num_stages: int, positions: Sequence[int]) -> dict[str, str | None]:
    """Prefix of each stage in the deeper network -> that of the stage it was."""
    origin: dict[str, str | None] = {}
    for index in range(num_stages):
        origin[f"backbone.stages.{len(origin)}."] = f"backbone.stages.{index}."
        if index in positions:
            origin[f"backbone.stages.{len(origin)}."] = None
    return origin


def _filled(network: Network, before: Network, origin: Mapping[str, str | None]) -> dict[str, Tensor]:
    """State dict of the deeper network: old layers as they were, new ones without effect."""
    old = before.state_dict()
    zero = _LAST_OF_BLOCK if isinstance(before.backbone.stages[0], Block) else ("norm2.weight",)
    state = {}
    for key, value in network.state_dict().items():
        prefix = next((each for each in origin if key.startswith(each)), None)
        if prefix is None:
            state[key] = old[key].clone()
        elif (former := origin[prefix]) is not None:
            state[key] = old[former + key.removeprefix(prefix)].clone()
        else:
            state[key] = _without_effect(key.removeprefix(prefix), value, zero)
    return state


def _without_effect(name: str, value: Tensor, zero: Sequence[str]) -> Tensor:
    if name in zero:
        return torch.zeros_like(value)
    if name == "0.weight" and value.dim() == 2:
        return torch.eye(len(value), dtype=value.dtype)
    if name == "0.bias":
        return torch.zeros_like(value)
    return value.clone()
