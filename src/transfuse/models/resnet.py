"""`model=resnet`: a small residual network with BatchNorm (He et al. 2016, arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from transfuse.models.checks import require, require_image, require_sizes
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.models.widths import Slot, WidthGroup, columns, heads_reading, norm, rows
from transfuse.types import Task


def build_resnet(
    *,
    input_shape: tuple[int, ...],
    tasks: tuple[Task, ...],
    channels: Sequence[int] = (16, 32, 64),
    blocks: Sequence[int] = (1, 1, 1),
) -> Network:
    """A residual network: 3x3 stem, stages of residual blocks, global average pooling.

    Args:
        input_shape: (channels, height, width) of one image.
        tasks: what to predict.
        channels: of each stage, >= 1; every stage but the first halves height and width.
        blocks: residual blocks of each stage, >= 1; as many entries as `channels`.

    Raises:
        HyperparameterError: when a size is out of its range or the inputs are no images.
    """
    in_channels, _, _ = require_image("resnet", input_shape)
    require_sizes("channels", channels)
    require_sizes("blocks", blocks)
    require(len(blocks) == len(channels), "blocks", f"as long as `channels = {list(channels)}`", list(blocks))
    stem = nn.Sequential(*_convolution(in_channels, channels[0]), nn.ReLU())
    stages = [
        _stage(before, after, num_blocks=num, stride=1 if index == 0 else 2)
        for index, ((before, after), num) in enumerate(zip(pairwise((channels[0], *channels)), blocks, strict=True))
    ]
    neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = with_heads(Backbone(stem=stem, stages=stages, neck=neck, features=channels[-1]), tasks)
    network.widths = _widths(network)
    return network


def _widths(network: Network) -> tuple[WidthGroup, ...]:
    """One residual stream a stage, numbered alike by all who write and read it; one width inside each block."""
    groups: list[WidthGroup] = []
    stem = network.backbone.stem
    writers = [("backbone.stem.0", stem.get_submodule("0"))]
    norms = [("backbone.stem.1", stem.get_submodule("1"))]
    readers: list[tuple[Slot, ...]] = []
    for index, stage in enumerate(network.backbone.stages):
        for place, block in stage.named_children():
            assert isinstance(block, ResidualBlock)
            prefix = f"backbone.stages.{index}.{place}"
            readers.append(columns(f"{prefix}.convolution1"))
            projected = len(block.shortcut) > 0
            if projected:
                readers.append(columns(f"{prefix}.shortcut.0"))
                groups.append(_stream(index - 1, writers, norms, readers))
                writers, norms, readers = [(f"{prefix}.shortcut.0", block.shortcut[0])], [], []
                norms = [(f"{prefix}.shortcut.1", block.shortcut[1])]
            writers.append((f"{prefix}.convolution2", block.convolution2))
            norms.append((f"{prefix}.norm2", block.norm2))
            groups.append(
                WidthGroup(
                    name=f"channels.{index}.inside.{place}",
                    field="channels",
                    index=index,
                    size=block.convolution1.out_channels,
                    producers=rows(f"{prefix}.convolution1", block.convolution1),
                    consumers=columns(f"{prefix}.convolution2"),
                    normalizers=norm(f"{prefix}.norm1", block.norm1),
                )
            )
    readers.append(heads_reading(network))
    groups.append(_stream(len(network.backbone.stages) - 1, writers, norms, readers))
    return tuple(groups)


def _stream(
    index: int,
    writers: list[tuple[str, nn.Module]],
    norms: list[tuple[str, nn.Module]],
    readers: list[tuple[Slot, ...]],
) -> WidthGroup:
    return WidthGroup(
        name=f"channels.{index}",
        field="channels",
        index=index,
        size=writers[0][1].get_parameter("weight").shape[0],
        producers=tuple(slot for prefix, layer in writers for slot in rows(prefix, layer)),
        consumers=tuple(slot for slots in readers for slot in slots),
        normalizers=tuple(slot for prefix, layer in norms for slot in norm(prefix, layer)),
    )


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))); the shortcut is a 1x1 projection where shapes change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.convolution1, self.norm1 = _convolution(in_channels, out_channels, stride=stride)
        self.activation1 = nn.ReLU()
        self.convolution2, self.norm2 = _convolution(out_channels, out_channels)
        same = stride == 1 and in_channels == out_channels
        projection = () if same else _convolution(in_channels, out_channels, kernel=1, stride=stride)
        self.shortcut = nn.Sequential(*projection)
        self.activation2 = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, channels, height, width) after the block."""
        hidden = self.activation1(self.norm1(self.convolution1(images)))
        hidden = self.norm2(self.convolution2(hidden))
        output: Tensor = self.activation2(self.shortcut(images) + hidden)
        return output


def _stage(in_channels: int, out_channels: int, *, num_blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, 1) for _ in range(num_blocks - 1)))


def _convolution(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(out_channels)
