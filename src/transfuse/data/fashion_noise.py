"""Transfer from clean Fashion-MNIST to few noisy images of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transfuse.data.fashion_transfer import ALL, FashionTransfer
from transfuse.data.noise import CleanToNoisy
from transfuse.types import Split


@dataclass(frozen=True, kw_only=True)
class FashionNoise(FashionTransfer):
    """Fashion-MNIST, 10 classes clean -> the same classes with Gaussian noise, on other images.

    Attributes:
        noise: standard deviation of the noise in units of the standardized pixel, >= 0.
    """

    noise: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self._noise  # out of its range is refused there

    @property
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All, in both."""
        return ALL, ALL

    @property
    def note(self) -> str:
        """How noisy the target is."""
        return self._noise.note

    def change(self, split: Split, part: Literal["pool", "test"], seed: int) -> Split:
        """Noise of each image's own."""
        return self._noise(split, part, seed)

    @property
    def _noise(self) -> CleanToNoisy:
        return CleanToNoisy(noise=self.noise)
