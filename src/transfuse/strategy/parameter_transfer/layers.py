"""Layers of a network that a method watches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from transfuse.models.features import require_network
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError


def layers_of(network: nn.Module, names: Sequence[str], who: str) -> tuple[str, ...]:
    """The names, if they are modules of the network.

    Raises:
        HyperparameterError: a name is none, with the nearest.
        UnsupportedStructureError: the network is no backbone with heads.
    """
    require_network(network, who)
    known = [name for name, _ in network.named_modules() if name]
    for name in names:
        if name not in known:
            raise HyperparameterError(f"`layers` should name modules. Found `{name}`.{nearest(name, known)}")
    return tuple(names)


def stages_of(network: nn.Module, who: str) -> tuple[str, ...]:
    """One layer a stage of the backbone."""
    backbone = require_network(network, who).backbone
    return tuple(f"backbone.stages.{index}" for index in range(len(backbone.stages)))
