"""Rules that make a pretrained tensor fit a network whose inputs have another size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from transfuse.models.checks import require_size
from transfuse.types import StateDictMismatch

POSITION_NAMES = ("position_embedding", "position_embeddings", "pos_embed", "pos_embedding")
PREFIX_TOKENS = (0, 1, 2)  # none, a class token, class and distillation tokens


def adapt(name: str, value: Tensor, target: Tensor, *, first_convolution: str) -> tuple[str, Tensor] | None:
    """The rule that fits and the tensor in the target's shape; None when no rule fits.

    Args:
        name: key of the target.
        value: the source's tensor.
        target: the network's tensor.
        first_convolution: key of the network's first convolution weight; only that one takes `input_channels`.
    """
    if value.is_floating_point() != target.is_floating_point():
        return None
    if value.shape == target.shape:
        return "equal", value
    same_but_channels = value.shape[:1] + value.shape[2:] == target.shape[:1] + target.shape[2:]
    if name == first_convolution and value.dim() == target.dim() and same_but_channels:
        return "input_channels", adapt_input_channels(value, target.shape[1])
    if name.rpartition(".")[2] in POSITION_NAMES and (layout := _square_grids(value, target)):
        prefix, side = layout
        return "position_embedding", resample_position_embedding(value, (side, side), prefix)
    return None


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """First-convolution weights for another number of input channels.

    To 1 channel: the sum over input channels. To k channels from c: tiled to k channels and scaled by c / k, so that an
    input whose channels are equal gives about the same activations.

    Args:
        weight: (O, c, *kernel).
        channels: k >= 1.

    Returns:
        (O, k, *kernel).

    Example:
        >>> adapt_input_channels(torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]]), 1).flatten()
        tensor([6.])

    Reference:
        `adapt_input_conv` of timm (Wightman 2019).
    """
    require_size("channels", channels)
    before = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    tiled = weight.repeat(1, math.ceil(channels / before), *[1] * (weight.dim() - 2))[:, :channels]
    # w' = w c / k
    return tiled * (before / channels)


def resample_position_embedding(pe: Tensor, size: tuple[int, int], prefix: int) -> Tensor:
    """Learned positions of a square grid of patches, resampled to another grid (bicubic, antialiased).

    Args:
        pe: (1, prefix + g * g, W) position embedding.
        size: rows and columns of the new grid.
        prefix: leading tokens that are no patches (class token), kept as they are, >= 0.

    Returns:
        (1, prefix + rows * columns, W).

    Raises:
        StateDictMismatch: when the patches form no square grid.

    Example:
        >>> resample_position_embedding(torch.ones(1, 5, 2), (3, 3), 1).shape
        torch.Size([1, 10, 2])

    Reference:
        Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.2; `resample_abs_pos_embed` of timm.
    """
    kept, grid = pe[:, :prefix], pe[:, prefix:]
    side = math.isqrt(grid.shape[1])
    if side * side != grid.shape[1]:
        raise StateDictMismatch(
            f"A position embedding should have prefix + g * g tokens. Found {pe.shape[1]} with `prefix = {prefix}`."
        )
    image = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    resampled = nn.functional.interpolate(image, size=size, mode="bicubic", antialias=True)
    tokens = resampled.flatten(2).transpose(1, 2).to(pe.dtype)
    return torch.cat([kept, tokens], dim=1)


def first_convolution(network: nn.Module) -> str:
    """State dict key of the first ungrouped convolution's weight in module order; empty where there is none."""
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return f"{name}.weight".lstrip(".") if module.groups == 1 else ""
    return ""


def _square_grids(value: Tensor, target: Tensor) -> tuple[int, int] | None:
    """The number of prefix tokens that leaves square grids on both sides, and the side of the target's grid."""
    if value.dim() != 3 or target.dim() != 3 or value.shape[0] != 1 or value.shape[2] != target.shape[2]:
        return None
    for prefix in PREFIX_TOKENS:
        before, after = value.shape[1] - prefix, target.shape[1] - prefix
        if before > 0 and after > 0 and math.isqrt(before) ** 2 == before and math.isqrt(after) ** 2 == after:
            return prefix, math.isqrt(after)
    return None
