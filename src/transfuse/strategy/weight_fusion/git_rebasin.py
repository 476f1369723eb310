"""`weight_fusion/git_rebasin`: models are permuted to match the best one, then averaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from transfuse.alignment import Matcher, WeightMatching
from transfuse.base_models.model import Description
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.aligned import Aligned
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.linear import LinearMerge
from transfuse.strategy.weight_fusion.weighted import WeightSource
from transfuse.types import Development, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class GitReBasin(WeightFusion):
    """`x = sum_i w_i P_i(x_i) / sum_i w_i`, P_i permutes the units of model i to match those of the best model.

    The preset of `align` and `weight_fusion/linear`, for models that were trained independently.

    Attributes:
        align: how units are matched.
        weights: as those of `LinearMerge`.

    Example:
        >>> GitReBasin(align=WeightMatching(restarts=3)).align.name
        'weight_matching'

    Reference:
        Ainsworth, Hayase & Srinivasa 2023, "Git Re-Basin: Merging Models modulo Permutation Symmetries", 2209.04836.
    """

    needs: ClassVar[str] = "the networks, which tell what units may be permuted"
    align_models: ClassVar[bool] = False

    align: Matcher = field(default_factory=WeightMatching)
    weights: WeightSource = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.align, Matcher):
            raise HyperparameterError(
                f"`align` should be weight_matching, activation_matching or straight_through. "
                f"Found `align = {self.align}`. Did you mean strategy=weight_fusion/linear?"
            )
        self._aligned()  # checks the weights

    def check(self, development: Development, base_models: Description) -> None:
        """What aligning and averaging ask."""
        super().check(development, base_models)
        self._aligned().check(development, base_models)

    def apply(self, context: Context) -> FusedModel:
        """Permutes and averages."""
        return self._aligned().apply(context)

    def _aligned(self) -> Aligned:
        inner = LinearMerge(
            batch_norm=self.batch_norm, fuse=self.fuse, only=self.only, skip=self.skip, weights=self.weights
        )
        return Aligned(inner=inner, matcher=self.align)
