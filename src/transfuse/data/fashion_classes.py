"""What the transfer problems between classes of Fashion-MNIST have in common."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Literal

from transfuse.data.fashion_mnist import ARTICLE
from transfuse.data.fashion_transfer import FashionTransfer
from transfuse.data.transfer_splits import require_classes
from transfuse.types import Split


@dataclass(frozen=True, kw_only=True)
class FashionClasses(FashionTransfer, ABC):
    """Some classes -> others; the images themselves are alike.

    Attributes:
        source: labels of the source's classes, at least two in 0..9.
        target: labels of the target's classes, in the order of its outputs.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]

    def __post_init__(self) -> None:
        require_classes("source", self.source, ARTICLE)
        require_classes("target", self.target, ARTICLE)
        super().__post_init__()

    @property
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The fields."""
        return tuple(self.source), tuple(self.target)

    @property
    def note(self) -> str:
        """Which classes there are."""
        first, second = (", ".join(ARTICLE.classes[label] for label in labels) for labels in self.classes)
        return f"The source's classes are {first}; the target's are {second}."

    def change(self, split: Split, part: Literal["pool", "test"], seed: int) -> Split:
        """None: the classes differ."""
        return split
