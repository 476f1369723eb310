"""Transfer between classes of Fashion-MNIST that look alike."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.data.fashion_classes import FashionClasses


@dataclass(frozen=True, kw_only=True)
class FashionLookalike(FashionClasses):
    """T-shirt, pullover, dress, sandal, bag -> shirt, coat, trouser, sneaker, ankle boot."""

    source: tuple[int, ...] = (0, 2, 3, 5, 8)
    target: tuple[int, ...] = (6, 4, 1, 7, 9)
