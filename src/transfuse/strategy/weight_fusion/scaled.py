"""Per-tensor methods that add a merged task vector to the base, times a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.types import HyperparameterError

SCALES = tuple(round(0.1 * step, 1) for step in range(1, 16))  # 0.1 to 1.5


@dataclass(frozen=True, kw_only=True)
class Scaled(TensorFusion):
    """`x = b + scale * merged task vector`; d_i = x_i - b are the models' task vectors.

    Attributes:
        scale: >= 0, the papers' lambda; `search` takes the best of `grid` on validation data.
        grid: what `search` tries; one look at the validation split each.
    """

    base: ClassVar[Need] = "required"

    scale: float | Literal["search"] = 1.0
    grid: tuple[float, ...] = SCALES

    def __post_init__(self) -> None:
        super().__post_init__()
        tried = self.grid if self.scale == "search" else (self.scale,)
        if not self.grid:
            raise HyperparameterError("`grid` should have at least one value. Found `grid = []`.")
        for value in (*tried, *self.grid):
            if isinstance(value, str) or not 0 <= value < math.inf:
                name = "scale" if value is self.scale else "grid"
                rule = "a number >= 0 or search" if name == "scale" else "finite numbers >= 0"
                raise HyperparameterError(f"`{name}` should be {rule}. Found `{name} = {value}`.")

    @property
    def searches(self) -> Mapping[str, Sequence[float]]:
        """The grid of scales, where they are searched."""
        return {**super().searches, "scale": self.grid} if self.scale == "search" else super().searches
