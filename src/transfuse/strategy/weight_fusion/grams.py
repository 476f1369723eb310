"""Uncentered second moments of what enters a network's linear layers and convolutions.

Dimensions in tensor names: N examples, R rows (examples x positions), I inputs of a row, G groups of a convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

_ROWS = 8192  # rows in float64 at a time


@torch.no_grad()
def input_grams(network: nn.Module, inputs: Tensor, *, batch_size: int = 32) -> dict[str, Tensor]:
    """`G = X^T X / R` of the inputs X (R, I) of every linear layer and convolution of a network.

    Rows of a linear layer are its inputs at all positions; those of a convolution are the patches under its kernel,
    one Gram matrix a group.

    Args:
        network: in the mode to be measured, evaluation as a rule; not changed.
        inputs: (N, ...), at least one.
        batch_size: examples at a time.

    Returns:
        Key of the layer's weight, under each of its names -> (I, I) or (G, I, I) float64. Layers that do not run have
        none.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3))
        >>> input_grams(network, torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        {'0.weight': tensor([[1., 1.],
                [1., 2.]], dtype=torch.float64)}

    Reference:
        Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models", 2212.09849, sec. 3.2.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    totals: dict[int, Tensor] = {}
    rows: dict[int, int] = {}

    def add(layer: nn.Linear | _ConvNd, given: tuple[Tensor, ...]) -> None:
        patches_GRI = _patches(layer, given[0].detach())
        place = id(layer.weight)
        for piece_GRI in torch.split(patches_GRI, _ROWS, dim=1):
            # X^T X
            gram_GII = torch.einsum("gri,grj->gij", piece_GRI.double(), piece_GRI.double())
            totals[place] = gram_GII if place not in totals else totals[place].add_(gram_GII)
        rows[place] = rows.get(place, 0) + patches_GRI.shape[1]

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    hooks = [layer.register_forward_pre_hook(add) for layer in layers]
    try:
        for batch in torch.split(inputs, batch_size):
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    linear = {id(layer.weight) for layer in layers if isinstance(layer, nn.Linear)}
    return {
        name: (total[0] if place in linear else total) / rows[place]
        for place, total in totals.items()
        for name in names[place]
    }


def _patches(layer: nn.Linear | _ConvNd, inputs: Tensor) -> Tensor:
    """(G, R, I) what each output of a layer is a product with."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, layer.in_features)
    windows = _padded(layer, inputs)
    for axis, (kernel, dilation, stride) in enumerate(
        zip(layer.kernel_size, layer.dilation, layer.stride, strict=True), start=2
    ):
        windows = windows.unfold(axis, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
    spatial = len(layer.kernel_size)
    # (N, C, *out, *kernel) -> (N, G, C / G, *out, *kernel) -> (G, N, *out, C / G, *kernel)
    num_examples, channels, *rest = windows.shape
    grouped = windows.reshape(num_examples, layer.groups, channels // layer.groups, *rest)
    positions, kernels = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
    patches: Tensor = grouped.permute(1, 0, *positions, 2, *kernels).flatten(2 + spatial).flatten(1, 1 + spatial)
    return patches


def _padded(layer: _ConvNd, inputs: Tensor) -> Tensor:
    if isinstance(layer.padding, str):  # `same`, which puts the odd one last, or `valid`
        totals = [
            d * (k - 1) * (layer.padding == "same") for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(amount, amount) for amount in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return nn.functional.pad(inputs, [amount for pair in reversed(pairs) for amount in pair], mode=mode)
