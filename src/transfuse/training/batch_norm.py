"""BatchNorm statistics of weights that were not trained with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def reestimate(network: nn.Module, layers: Sequence[nn.Module], inputs: Tensor, *, batch_size: int) -> None:
    """Sets running statistics to the mean over full batches of each batch's mean and (unbiased) variance, in place.

    Only BatchNorm layers of `layers` change; all other layers run in evaluation mode. A last partial batch is left out
    unless it is the only one. Every layer is in the mode that it was in before.

    Args:
        network: that holds the layers.
        layers: of which BatchNorm layers with running statistics are re-estimated; others are ignored.
        inputs: (N, *input shape), anywhere.
        batch_size: N of one batch.
    """
    chosen = [layer for layer in layers if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
    if not chosen:
        return
    training = [(layer, layer.training) for layer in network.modules()]
    momenta = [layer.momentum for layer in chosen]
    network.eval()
    for layer in chosen:
        layer.reset_running_stats()
        layer.momentum = None  # the unweighted mean over batches
        layer.train()
    device = next(network.parameters()).device
    last = len(inputs) - len(inputs) % batch_size or len(inputs)
    for batch in torch.split(inputs[:last], batch_size):
        network(batch.to(device))
    for layer, momentum in zip(chosen, momenta, strict=True):
        layer.momentum = momentum
    for each, mode in training:
        each.training = mode
