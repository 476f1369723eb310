"""`model=vit`: a small pre-norm vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

Dimensions in tensor names: N images, L patches, W width, H heads, D width of a head.
Differs from the paper: features are the mean over patches, there is no class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from transfuse.models.checks import require, require_dropout, require_image, require_size
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.models.widths import Slot, WidthGroup, columns, heads_reading, norm, rows
from transfuse.types import HyperparameterError, Task


def build_vit(
    *,
    input_shape: tuple[int, ...],
    tasks: tuple[Task, ...],
    patch: int = 2,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    mlp_ratio: float = 2.0,
    dropout: float = 0.0,
) -> Network:
    """A vision transformer: patches, learned positions, `depth` pre-norm blocks, mean over patches.

    Args:
        input_shape: (channels, height, width) of one image.
        tasks: what to predict.
        patch: side of a square patch; divides height and width.
        width: of the residual stream; a multiple of `heads`.
        depth: number of blocks, >= 1; each is a stage.
        heads: attention heads, >= 1.
        mlp_ratio: hidden units of a block's MLP over `width`, > 0.
        dropout: probability of dropping what a block adds to the stream, in [0, 1).

    Raises:
        HyperparameterError: when a size is out of its range or the inputs are no images.
    """
    in_channels, height, image_width = require_image("vit", input_shape)
    for field, size in {"patch": patch, "width": width, "depth": depth, "heads": heads}.items():
        require_size(field, size)
    require(mlp_ratio > 0, "mlp_ratio", "> 0", mlp_ratio)
    require_dropout(dropout)
    require(width % heads == 0, "width", f"a multiple of `heads = {heads}`", width)
    if height % patch or image_width % patch:
        raise HyperparameterError(
            f"`patch` should divide the image's height and width. Found `patch = {patch}` and images of "
            f"{height} x {image_width}."
        )
    patches = (height // patch) * (image_width // patch)
    stem = PatchEmbedding(in_channels, patch=patch, patches=patches, width=width)
    hidden = max(1, round(width * mlp_ratio))
    stages = [Block(width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(depth)]
    network = with_heads(Backbone(stem=stem, stages=stages, neck=MeanOfPatches(width), features=width), tasks)
    network.widths = _widths(network)
    return network


def _widths(network: Network) -> tuple[WidthGroup, ...]:
    """The residual stream; in each block heads, and units of its MLP."""
    stem = network.backbone.stem
    writers = [
        Slot(key="backbone.stem.position_embedding", dim=2),
        *rows("backbone.stem.projection", stem.get_submodule("projection")),
    ]
    norms = list(norm("backbone.neck.norm", network.backbone.neck.get_submodule("norm")))
    readers = list(heads_reading(network))
    inner: list[WidthGroup] = []
    for index, block in enumerate(network.backbone.stages):
        assert isinstance(block, Block)
        prefix = f"backbone.stages.{index}"
        attention, dims = block.attention, block.attention.query.out_features // block.attention.heads
        for name in ("query", "key", "value"):
            readers += columns(f"{prefix}.attention.{name}")
        readers += columns(f"{prefix}.mlp.0")
        writers += [*rows(f"{prefix}.attention.out", attention.out), *rows(f"{prefix}.mlp.2", block.mlp[2])]
        norms += [*norm(f"{prefix}.norm1", block.norm1), *norm(f"{prefix}.norm2", block.norm2)]
        made = [
            slot
            for name in ("query", "key", "value")
            for slot in rows(f"{prefix}.attention.{name}", attention.get_submodule(name), block=dims)
        ]
        inner += [
            WidthGroup(
                name=f"heads.{index}",
                field="heads",
                index=None,
                size=attention.heads,
                producers=tuple(made),
                consumers=columns(f"{prefix}.attention.out", block=dims),
            ),
            WidthGroup(
                name=f"hidden.{index}",
                field="mlp_ratio",
                index=None,
                size=block.mlp[0].get_parameter("weight").shape[0],
                producers=rows(f"{prefix}.mlp.0", block.mlp[0]),
                consumers=columns(f"{prefix}.mlp.2"),
            ),
        ]
    stream = WidthGroup(
        name="width",
        field="width",
        index=None,
        size=network.backbone.features,
        producers=tuple(writers),
        consumers=tuple(readers),
        normalizers=tuple(norms),
        whole=True,
    )
    return (stream, *inner)


class PatchEmbedding(nn.Module):
    """Images (N, channels, height, width) to patches (N, L, W): one convolution, plus learned positions."""

    def __init__(self, in_channels: int, *, patch: int, patches: int, width: int) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.empty(1, patches, width))
        self.reset_parameters()
        self.projection = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)

    def reset_parameters(self) -> None:
        """Draws the positions anew; the convolution has a `reset_parameters` of its own."""
        nn.init.trunc_normal_(self.position_embedding, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Patches (N, L, W), row by row."""
        patches_NLW: Tensor = self.projection(images).flatten(2).transpose(1, 2)
        return patches_NLW + self.position_embedding


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(D)) V over H heads, then the output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden_NLW: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W)."""
        query_NHLD = self.query(hidden_NLW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key_NHLD = self.key(hidden_NLW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        value_NHLD = self.value(hidden_NLW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed_NHLD = nn.functional.scaled_dot_product_attention(query_NHLD, key_NHLD, value_NHLD)
        output_NLW: Tensor = self.out(mixed_NHLD.transpose(1, 2).flatten(2))
        return output_NLW


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(dropout))

    def forward(self, hidden_NLW: Tensor) -> Tensor:
        """(N, L, W) to (N, L, W)."""
        hidden_NLW = hidden_NLW + self.dropout1(self.attention(self.norm1(hidden_NLW)))
        output_NLW: Tensor = hidden_NLW + self.mlp(self.norm2(hidden_NLW))
        return output_NLW


class MeanOfPatches(nn.Module):
    """Patches (N, L, W) to features (N, W): final norm, then the mean over patches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden_NLW: Tensor) -> Tensor:
        """(N, W)."""
        features_NW: Tensor = self.norm(hidden_NLW).mean(dim=1)
        return features_NW
