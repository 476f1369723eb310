"""BatchNorm statistics of weights that were not trained with them, measured on data.

Dimensions in tensor names: N examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transfuse.models.predict import evaluating
from transfuse.types import DataError


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any module keeps running statistics."""
    return bool(_keeping(network.modules()))


@torch.no_grad()
def reestimate(network: nn.Module, layers: Iterable[nn.Module], batches: Iterable[Tensor]) -> None:
    """Running statistics of `layers` measured on data, in place: reset, then one pass.

    The unweighted mean over batches of the batch means and unbiased batch variances, which is PyTorch's cumulative
    average (`momentum=None`). All other modules are in evaluation mode: dropout is off. Counters of training batches,
    momenta and modes are as before.

    Args:
        network: that holds the layers; it is not run where none of them keeps statistics.
        layers: of which those that keep BatchNorm statistics are measured.
        batches: inputs (N, ...), of equal size, anywhere; see `full_batches`.

    Raises:
        DataError: a batch has one value a channel, which has no variance.

    Reference:
        Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", 1803.05407, sec. 3.2.
    """
    chosen = _keeping(layers)
    if not chosen:
        return
    device = chosen[0].get_buffer("running_mean").device
    before = [(layer.momentum, layer.get_buffer("num_batches_tracked").clone()) for layer in chosen]
    try:
        with evaluating(network):
            for layer in chosen:
                layer.reset_running_stats()
                layer.momentum = None
                layer.train()
            for inputs in batches:
                _run(network, inputs.to(device))
    finally:
        for layer, (momentum, counter) in zip(chosen, before, strict=True):
            layer.momentum = momentum
            layer.get_buffer("num_batches_tracked").copy_(counter)


def full_batches(inputs: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled batches of one size, at least 2; a last partial one is dropped unless it is the only one.

    Shuffled, because data that are sorted by class would leave the variance between classes out of every batch.

    Raises:
        DataError: when the first batch is drawn and there are fewer than two examples.
    """
    num_examples = len(inputs)
    if num_examples < 2:
        raise DataError(f"BatchNorm statistics need at least 2 training examples. Found {num_examples}.")
    size = min(max(batch_size, 2), num_examples)
    order = torch.randperm(num_examples, generator=generator).to(inputs.device)
    for start in range(0, num_examples - size + 1, size):
        yield inputs[order[start : start + size]]


def _keeping(modules: Iterable[nn.Module]) -> list[_BatchNorm]:
    return [module for module in modules if isinstance(module, _BatchNorm) and module.running_mean is not None]


def _run(network: nn.Module, inputs: Tensor) -> None:
    try:
        network(inputs)
    except ValueError as error:
        if len(inputs) > 1:
            raise
        raise DataError(
            f"BatchNorm statistics need batches of at least 2 examples. Found a batch of 1: {error}."
        ) from error
