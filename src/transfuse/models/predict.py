"""Predictions of a network on many examples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from transfuse.models.checks import require_size


@torch.no_grad()
def predict(network: nn.Module, inputs: Tensor, *, batch_size: int = 1024) -> dict[str, Tensor]:
    """Outputs of `network` in evaluation mode: task name -> (N, C) float32 on the CPU.

    Batches are cut at the same places for the same `batch_size`, so that a repeated call gives the same bits. Whether
    the outputs are finite is for the caller to check.

    Args:
        network: maps inputs (N, ...) to a dict task -> (N, C). Its training or evaluation mode, module by module, is
            the same after the call.
        inputs: (N, ...), on any device.
        batch_size: examples a forward pass, >= 1.

    Raises:
        HyperparameterError: when `batch_size` is below 1.

    Example:
        >>> network = build_mlp(input_shape=(4,), tasks=(Task(name="y", kind="classification", outputs=3),))
        >>> predict(network, torch.zeros(5, 4))["y"].shape
        torch.Size([5, 3])
    """
    require_size("batch_size", batch_size)
    parameter = next(network.parameters(), None)
    device = inputs.device if parameter is None else parameter.device
    with evaluating(network), torch.autocast(device.type, enabled=False):
        batches = [network(batch.to(device)) for batch in torch.split(inputs, batch_size)]
    return {task: torch.cat([outputs[task].float().cpu() for outputs in batches]) for task in batches[0]}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module has the mode that it had before."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
