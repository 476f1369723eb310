"""What the heads of a network see: its penultimate features.

Dimensions in tensor names: N examples, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transfuse.models.checks import require_size
from transfuse.models.network import Network
from transfuse.models.predict import evaluating
from transfuse.types import UnsupportedStructureError


def require_network(network: nn.Module, what: str) -> Network:
    """The network, if it is a backbone with heads.

    Raises:
        UnsupportedStructureError: it is something else, of which nothing says what its features are.
    """
    if not isinstance(network, Network):
        raise UnsupportedStructureError(
            f"{what} needs a network that is a backbone with one linear head a task (`transfuse.models.Network`). "
            f"Found {type(network).__name__}. Did you mean model=mlp, cnn, resnet or vit?"
        )
    return network


@torch.no_grad()
def features_of(network: nn.Module, inputs: Tensor, *, batch_size: int = 1024) -> Tensor:
    """The backbone's features in evaluation mode.

    Args:
        network: a backbone with heads; its mode, module by module, is the same after the call.
        inputs: (N, ...), on any device.
        batch_size: examples a forward pass, >= 1.

    Returns:
        (N, F) float32 on the CPU.

    Raises:
        UnsupportedStructureError: the network is no backbone with heads.

    Example:
        >>> network = build_mlp(input_shape=(4,), tasks=(Task(name="y", kind="classification", outputs=3),), widths=[8])
        >>> features_of(network, torch.zeros(5, 4)).shape
        torch.Size([5, 8])
    """
    require_size("batch_size", batch_size)
    backbone = require_network(network, "Reading features").backbone
    device = next(network.parameters()).device
    with evaluating(network), torch.autocast(device.type, enabled=False):
        return torch.cat([backbone(batch.to(device)).float().cpu() for batch in torch.split(inputs, batch_size)])
