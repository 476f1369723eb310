"""Transfer between the halves of Fashion-MNIST's classes, where it does not help."""

from __future__ import annotations

from dataclasses import dataclass

from transfuse.data.fashion_classes import FashionClasses


@dataclass(frozen=True, kw_only=True)
class FashionHalves(FashionClasses):
    """Fashion-MNIST classes 0-4 (clothes) -> 5-9 (mostly shoes, a shirt, a bag): no benefit is to be expected."""

    source: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: tuple[int, ...] = (5, 6, 7, 8, 9)
