"""Gaussian noise on the target's images of a transfer problem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from transfuse.data.dataset import require
from transfuse.randomness import make_generator
from transfuse.types import Split


def add_noise(split: Split, noise: float, generator: torch.Generator) -> Split:
    """Adds `noise` * e to every pixel, e ~ N(0, 1); `noise` is in units of the standardized pixel."""
    return replace(split, inputs=split.inputs + noise * torch.randn(split.inputs.shape, generator=generator))


@dataclass(frozen=True, kw_only=True)
class CleanToNoisy:
    """The change from clean source images to noisy target images, drawn once for each image.

    Attributes:
        noise: standard deviation of the noise in units of the standardized pixel, >= 0.
    """

    noise: float

    def __post_init__(self) -> None:
        require(0 <= self.noise < float("inf"), "noise", ">= 0 and finite", self.noise)

    def __call__(self, split: Split, part: Literal["pool", "test"], seed: int) -> Split:
        """The noisy images of one part, whose noise is a stream of its own."""
        return add_noise(split, self.noise, make_generator(seed, "noise", part))

    @property
    def note(self) -> str:
        """What the problem's notes say of it."""
        return (
            f"Target and test images carry Gaussian noise of {self.noise:g} standard deviations of a pixel; "
            "the source images are clean."
        )
