"""Which parameters of a network a policy trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfuse.models.network import Grouped, Groups, head_names
from transfuse.types import UnsupportedStructureError

if TYPE_CHECKING:
    from transfuse.training.plan import Phase

NORMS: tuple[type[nn.Module], ...] = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def groups_of(network: nn.Module, who: str) -> Groups:
    """The network's groups from input to head.

    Raises:
        UnsupportedStructureError: the network declares none, so nothing says which part is the head.
    """
    if not isinstance(network, Grouped):
        raise UnsupportedStructureError(
            f"{who} needs to know a network's parts from input to head. Found {type(network).__name__}, which declares "
            "none. Derive it from `transfuse.models.network.Grouped` and write `groups()`, or take a shipped model."
        )
    return network.groups()


def train_only(
    network: nn.Module, name: str, trained: Collection[str], *, lr_factor: float = 1.0, share: float = 1.0
) -> Phase:
    """A phase that trains `trained` and the heads; all else is frozen, with its BatchNorm in evaluation mode."""
    from transfuse.training.plan import ParameterGroup, Phase

    heads = head_names(network)
    names = [each for each, _ in network.named_parameters()]
    free = tuple(each for each in names if each in trained or each in heads)
    frozen = tuple(each for each in names if each not in trained and each not in heads)
    groups = [ParameterGroup(names=frozen, trainable=False, batch_norm="eval")] if frozen else []
    return Phase(name=name, share=share, groups=(*groups, ParameterGroup(names=free, lr_factor=lr_factor)))


def norm_parameters(network: nn.Module, *, batch_only: bool) -> frozenset[str]:
    """Names of the affine parameters of normalization layers outside of the heads."""
    kinds = (_BatchNorm,) if batch_only else NORMS
    found = {
        f"{prefix}.{name}"
        for prefix, layer in network.named_modules()
        if isinstance(layer, kinds)
        for name, _ in layer.named_parameters(recurse=False)
    }
    return frozenset(found) - head_names(network)
