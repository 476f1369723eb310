"""Task vectors without their largest and their smallest changes: the common part of the Breadcrumbs methods.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.cut import Cut
from transfuse.strategy.weight_fusion.election import Ballot
from transfuse.strategy.weight_fusion.interference import interference_of
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.trimming import kept_count, largest, task_vectors
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError

# One pair a model: where the dropped outliers end, and where what is kept ends.
Band = tuple[tuple[Cut, ...], ...]


def band_counts(density: float, gamma: float, num_elements: int) -> tuple[int, int]:
    """How many of n elements are dropped as outliers, and how many stand before the end of what is kept.

    `floor(gamma n)` are dropped, the next `max(1, floor(density n))` are kept; a tensor never loses all.

    Example:
        >>> band_counts(0.9, 0.01, 200), band_counts(0.9, 0.01, 1)
        ((2, 182), (0, 1))
    """
    kept = kept_count(density, num_elements)
    dropped = min(math.floor(gamma * num_elements), num_elements - kept)
    return dropped, dropped + kept


@dataclass(frozen=True, kw_only=True)
class Banded(Weighted, Scaled):
    """A method that keeps a middle band of each task vector's magnitudes, tensor by tensor.

    Attributes:
        density: in (0, 1], share of elements that are kept.
        gamma: in [0, 1), share of elements that are dropped as outliers: the largest ones. density + gamma <= 1.
    """

    scale: float | Literal["search"] = 0.3
    density: float = 0.9
    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise HyperparameterError(f"`density` should be in (0, 1]. Found `density = {self.density}`.")
        if not 0 <= self.gamma < 1:
            raise HyperparameterError(f"`gamma` should be in [0, 1). Found `gamma = {self.gamma}`.")
        if self.density + self.gamma > 1 + 1e-12:
            raise HyperparameterError(
                f"`density + gamma` should be at most 1. Found `density = {self.density}`, `gamma = {self.gamma}`."
            )

    def survey(self, blocks: Blocks) -> Band:
        """Both cuts of each model, found in one pass."""
        counts = band_counts(self.density, self.gamma, blocks.values_K[0].numel())
        return largest([blocks], [counts] * len(blocks.values_K))

    def interference(self, context: Context, parts: Parts, measured: Measured) -> dict[str, Any]:
        """Sign conflicts before and after trimming, and the mass that the election loses, where there is one."""
        return interference_of(self, context, parts, measured)

    @abstractmethod
    def ballot(self, block: Block, survey: Band) -> Ballot:
        """What lies inside the bands, and how it is merged."""

    def kept(self, block: Block, band: Band) -> Tensor:
        """(K, B) the task vectors inside their bands, zeros for others, in new memory."""
        deltas_KB = task_vectors(block)
        for delta_B, (outliers, end) in zip(deltas_KB, band, strict=True):
            kept_B = end.trim(delta_B, block.offset)
            # outliers are in both terms, and leave exact zeros
            delta_B.copy_(kept_B.sub_(outliers.trim(delta_B, block.offset)))
        return deltas_KB
