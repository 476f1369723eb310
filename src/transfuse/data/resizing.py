"""Images at another resolution."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.functional import avg_pool2d, interpolate

from transfuse.types import Split


def resized(split: Split, side: int) -> Split:
    """Images (N, C, H, W) as (N, C, side, side) float32: bilinear, with antialiasing where they become smaller."""
    if tuple(split.inputs.shape[2:]) == (side, side):
        return split
    images = interpolate(split.inputs.float(), size=(side, side), mode="bilinear", antialias=True)
    return replace(split, inputs=images)


def averaged(split: Split, side: int) -> Split:
    """Images whose pixels are means over squares of `side` x `side` pixels."""
    return replace(split, inputs=avg_pool2d(split.inputs.float(), side))
