"""Transfer from Fashion-MNIST to few images of it that are turned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from transfuse.data.dataset import require
from transfuse.data.fashion_transfer import ALL, FashionTransfer
from transfuse.types import Split


@dataclass(frozen=True, kw_only=True)
class FashionRotated(FashionTransfer):
    """Fashion-MNIST, 10 classes upright -> the same classes turned to the left, on other images.

    Attributes:
        degrees: of the turn, counterclockwise: 90, 180 or 270.
    """

    degrees: int = 90

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.degrees in (90, 180, 270), "degrees", "90, 180 or 270", self.degrees)

    @property
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All, in both."""
        return ALL, ALL

    @property
    def note(self) -> str:
        """How far the target is turned."""
        return f"Target and test images are turned by {self.degrees} degrees; the source images are upright."

    def change(self, split: Split, part: Literal["pool", "test"], seed: int) -> Split:
        """Quarter turns of height and width."""
        return replace(split, inputs=split.inputs.rot90(self.degrees // 90, (2, 3)))
