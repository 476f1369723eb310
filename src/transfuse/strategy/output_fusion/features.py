"""What a combiner may read of an example besides the members' outputs.

Dimensions in tensor names: N examples, F features.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from transfuse.base_models.model import BaseModels
from transfuse.models.network import Network
from transfuse.types import IncompatibleStrategyError

Reads = Literal["outputs", "input", "backbone"]

_BATCH = 1024


def example_features(reads: Reads, inputs: Tensor, network: nn.Module) -> Tensor | None:
    """Features (N, F) of inputs (N, ...): none, the flattened inputs, or what the backbone of `network` says.

    Args:
        reads: `outputs` (nothing besides the members' outputs), `input` or `backbone`.
        inputs: (N, ...).
        network: member 0 of the pool; only looked at for `backbone`.

    Raises:
        IncompatibleStrategyError: for `backbone`, when the network does not say which part of it is its backbone.

    Example:
        >>> example_features("input", torch.zeros(3, 2, 2), nn.Identity()).shape
        torch.Size([3, 4])
    """
    if reads == "outputs":
        return None
    if reads == "input":
        return inputs.flatten(1)
    if not isinstance(network, Network):
        raise IncompatibleStrategyError(
            f"`features = backbone` needs base models with a backbone, as those of model=mlp. "
            f"Found {type(network).__name__}. Did you mean strategy.features=outputs?"
        )
    features_NF: Tensor = network.backbone(inputs)
    return features_NF


@torch.no_grad()
def pool_features(reads: Reads, inputs: Tensor, base_models: BaseModels) -> Tensor | None:
    """`example_features` of many examples, batch by batch; a network is only made where it is needed."""
    if reads != "backbone":
        return example_features(reads, inputs, nn.Identity())
    network = base_models[0].network()
    found = [example_features(reads, batch, network) for batch in torch.split(inputs, _BATCH)]
    return torch.cat([batch for batch in found if batch is not None])
