"""`weight_fusion/wise_ft`: a point between the start and one fine-tuned model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.trimming import task_vectors
from transfuse.types import HyperparameterError

ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))  # 0.0 to 1.0


@dataclass(frozen=True, kw_only=True)
class WiseFT(TensorFusion):
    """`x = (1 - alpha) b + alpha x_1`, of one model; exact at both ends.

    Attributes:
        alpha: in [0, 1], 0.5 in the paper's advice; `search` takes the best of `grid` on validation data.
        grid: what `search` tries; one look at the validation split each.
        extrapolate: allow alpha beyond [0, 1].

    Example:
        >>> WiseFT(alpha=0.25).merged([{"w": torch.tensor([4.0])}], {"w": torch.tensor([0.0])})
        {'w': tensor([1.])}

    Reference:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", 2109.01903, equation 1.
    """

    base: ClassVar[Need] = "required"
    most: ClassVar[int | None] = 1

    alpha: float | Literal["search"] = 0.5
    grid: tuple[float, ...] = ALPHAS
    extrapolate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.grid:
            raise HyperparameterError("`grid` should have at least one value. Found `grid = []`.")
        given = () if self.alpha == "search" else (("alpha", self.alpha),)
        for name, value in (*given, *(("grid", value) for value in self.grid)):
            if isinstance(value, str) or not math.isfinite(value):
                rule = "a finite number or search" if name == "alpha" else "finite numbers"
                raise HyperparameterError(f"`{name}` should be {rule}. Found `{name} = {value}`.")
            if not (self.extrapolate or 0 <= value <= 1):
                raise HyperparameterError(
                    f"`{name}` should be in [0, 1]. Found `{name} = {value}`. Did you mean extrapolate=true?"
                )

    @property
    def searches(self) -> Mapping[str, Sequence[float]]:
        """The grid of alphas, where they are searched."""
        return {**super().searches, "alpha": self.grid} if self.alpha == "search" else super().searches

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The point between, (B,)."""
        assert block.base_B is not None and not isinstance(self.alpha, str)
        delta_B = task_vectors(block)[0]
        # from the nearer end, so that both ends, and equal ones, are exact
        if self.alpha < 0.5:
            return delta_B.mul_(self.alpha).add_(block.base_B)
        return delta_B.mul_(self.alpha - 1).add_(block.rows_K[0])
