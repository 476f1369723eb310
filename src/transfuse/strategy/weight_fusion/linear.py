"""`weight_fusion/linear`: a weighted average of the models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.leaves import WIDE
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.merging import weighted_sum
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError


def linear_coefficients(weights: Sequence[float], *, normalize: bool) -> tuple[float, ...]:
    """`w_i`, divided by their sum where `normalize`.

    Raises:
        HyperparameterError: a weight is not finite, or the sum is 0 (relative to the absolute sum, 1e-6) and would
            divide.

    Example:
        >>> linear_coefficients([3.0, 1.0], normalize=True)
        (0.75, 0.25)
    """
    if not all(math.isfinite(weight) for weight in weights):
        raise HyperparameterError(f"`weights` should be finite. Found `weights = {list(weights)}`.")
    total = math.fsum(weights)
    if normalize and abs(total) <= 1e-6 * math.fsum(map(abs, weights)):
        raise HyperparameterError(
            f"`weights` should not sum to 0. Found `weights = {list(weights)}`. Did you mean normalize=false?"
        )
    return tuple(weight / total for weight in weights) if normalize else tuple(weights)


@dataclass(frozen=True, kw_only=True)
class LinearMerge(Weighted):
    """`x = sum_i w_i x_i / sum_i w_i`.

    Attributes:
        weights: see `Weighted`; None: 1 each.
        normalize: divide by the sum of the weights.

    Example:
        >>> LinearMerge(weights=(3.0, 1.0)).merged([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])
        {'w': tensor([1.5000])}

    Reference:
        Wortsman et al. 2022 (2203.05482); Goddard et al. 2024 (2403.13257), "linear".
    """

    size: ClassVar[int] = WIDE

    normalize: bool = True

    def coefficients(self, num_models: int) -> tuple[float, ...]:
        """The models' shares."""
        return linear_coefficients(self.model_weights(num_models), normalize=self.normalize)

    def fuse_block(self, block: Block, survey: None) -> Tensor:
        """The weighted sum, (B,)."""
        num_models = block.num_models
        if self.weights is None and self.normalize:  # a division at the end rounds a mean as the exact one is rounded
            return weighted_sum(block.rows_K, (1.0,) * num_models, num_models, out=block.out_B)
        return weighted_sum(block.rows_K, self.coefficients(num_models), out=block.out_B)
