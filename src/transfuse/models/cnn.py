"""`model=cnn`: plain convolutions for small images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import nn

from transfuse.models.checks import require_dropout, require_image, require_size, require_sizes
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.models.widths import WidthGroup, chain, columns, heads_reading, norm, rows
from transfuse.types import HyperparameterError, Task


def build_cnn(
    *,
    input_shape: tuple[int, ...],
    tasks: tuple[Task, ...],
    channels: Sequence[int] = (16, 32),
    features: int = 64,
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Network:
    """A convolutional network: stages of 3x3 convolution, ReLU and 2x2 max-pooling, then one hidden layer.

    Args:
        input_shape: (channels, height, width) of one image; height and width >= 2^(number of stages).
        tasks: what to predict.
        channels: of each stage, >= 1.
        features: units of the hidden layer between the last stage and the heads, >= 1.
        batch_norm: whether a BatchNorm stands between convolution and ReLU.
        dropout: probability of dropping a feature before the heads, in [0, 1).

    Raises:
        HyperparameterError: when a size is out of its range or the inputs are no images.
    """
    in_channels, height, width = require_image("cnn", input_shape)
    require_sizes("channels", channels)
    require_size("features", features)
    require_dropout(dropout)
    shrink = 2 ** len(channels)
    if min(height, width) < shrink:
        raise HyperparameterError(
            f"`channels` should have fewer entries for images of {height} x {width}: each stage halves height and "
            f"width. Found `channels = {list(channels)}`, which needs at least {shrink} x {shrink}."
        )
    stages = [_stage(before, after, batch_norm=batch_norm) for before, after in pairwise((in_channels, *channels))]
    flat = channels[-1] * (height // shrink) * (width // shrink)
    neck = nn.Sequential(nn.Flatten(), nn.Linear(flat, features), nn.ReLU(), nn.Dropout(dropout))
    network = with_heads(Backbone(stem=nn.Identity(), stages=stages, neck=neck, features=features), tasks)
    network.widths = _widths(network, positions=flat // channels[-1])
    return network


def _widths(network: Network, positions: int) -> tuple[WidthGroup, ...]:
    """Channels of the stages, the last of which is read position by position, then features."""
    stages = [(f"backbone.stages.{index}", stage) for index, stage in enumerate(network.backbone.stages)]
    layers = [(f"{prefix}.0", stage.get_submodule("0")) for prefix, stage in stages]
    norms = [
        norm(f"{prefix}.1", each) if isinstance(each := stage.get_submodule("1"), nn.BatchNorm2d) else ()
        for prefix, stage in stages
    ]
    *inner, last = chain(network, "channels", layers, norms)
    hidden = network.backbone.neck.get_submodule("1")
    features = WidthGroup(
        name="features",
        field="features",
        index=None,
        size=network.backbone.features,
        producers=rows("backbone.neck.1", hidden),
        consumers=heads_reading(network),
    )
    return (*inner, replace(last, consumers=columns("backbone.neck.1", block=positions)), features)


def _stage(in_channels: int, out_channels: int, *, batch_norm: bool) -> nn.Sequential:
    norm = (nn.BatchNorm2d(out_channels),) if batch_norm else ()
    # a BatchNorm subtracts the mean: a bias before it would have no effect
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm)
    return nn.Sequential(convolution, *norm, nn.ReLU(), nn.MaxPool2d(2))
