"""Who writes and who reads each width of a network: what widening and shrinking must change together.

Dimensions in tensor names: N units after, n units before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from transfuse.models.network import Network
from transfuse.types import UnsupportedStructureError


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One dimension of one tensor that runs over the units of a width.

    Attributes:
        key: of the tensor in the state dict.
        dim: dimension.
        block: consecutive elements a unit: positions of a channel after flattening, dimensions of a head.
    """

    key: str
    dim: int = 0
    block: int = 1


@dataclass(frozen=True, kw_only=True)
class WidthGroup:
    """Units that all writers and readers must number alike.

    Attributes:
        name: unique in the network.
        field: of the architecture's recipe that holds the width.
        index: in that field, where it is a list.
        size: units.
        producers: where the units are written: weights' rows, biases, positions.
        consumers: where they are read: weights' columns.
        normalizers: scales, shifts and statistics that belong to a unit each.
        whole: the width may only be multiplied by an integer (a stream under LayerNorm).
    """

    name: str
    field: str
    index: int | None
    size: int
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    normalizers: tuple[Slot, ...] = ()
    whole: bool = False


def width_groups(network: nn.Module) -> tuple[WidthGroup, ...]:
    """The widths of a shipped network, from input to head.

    Raises:
        UnsupportedStructureError: another network, which declares none.

    Example:
        >>> network = build_mlp(input_shape=(4,), tasks=(Task(name="y", kind="classification", outputs=3),), widths=[8])
        >>> [(group.name, group.size) for group in width_groups(network)]
        [('widths.0', 8)]
    """
    if not isinstance(network, Network) or network.widths is None:
        raise UnsupportedStructureError(
            f"Nothing says who writes and reads the widths of {type(network).__name__}. Set `widths` of a "
            "`transfuse.models.Network` to its `WidthGroup`s, or take model=mlp, cnn, resnet or vit."
        )
    return network.widths


def heads_reading(network: Network) -> tuple[Slot, ...]:
    """The columns of all heads."""
    return tuple(Slot(key=f"heads.{name}.linear.weight", dim=1) for name in network.heads)


def rows(prefix: str, layer: nn.Module, block: int = 1) -> tuple[Slot, ...]:
    """Weight and bias of a layer as producers."""
    names = [name for name, _ in layer.named_parameters(recurse=False)]
    return tuple(Slot(key=f"{prefix}.{name}", block=block) for name in names)


def columns(prefix: str, block: int = 1) -> tuple[Slot, ...]:
    """A layer's weight as consumer."""
    return (Slot(key=f"{prefix}.weight", dim=1, block=block),)


def norm(prefix: str, layer: nn.Module) -> tuple[Slot, ...]:
    """All per-unit tensors of a normalization layer."""
    return tuple(Slot(key=f"{prefix}.{name}") for name, value in layer.state_dict().items() if value.dim() == 1)


def chain(
    network: Network, field: str, layers: Sequence[tuple[str, nn.Module]], extra: Sequence[tuple[Slot, ...]]
) -> tuple[WidthGroup, ...]:
    """Widths of layers that follow one another: each is written by one layer and read by the next, or by the heads.

    Args:
        network: whose they are.
        field: of the recipe.
        layers: name and layer, from input to head.
        extra: normalizers of each.
    """
    groups = []
    for index, ((prefix, layer), normalizers) in enumerate(zip(layers, extra, strict=True)):
        after = columns(layers[index + 1][0]) if index + 1 < len(layers) else heads_reading(network)
        size = layer.get_parameter("weight").shape[0]
        groups.append(
            WidthGroup(
                name=f"{field}.{index}",
                field=field,
                index=index,
                size=size,
                producers=rows(prefix, layer),
                consumers=after,
                normalizers=normalizers,
            )
        )
    return tuple(groups)
