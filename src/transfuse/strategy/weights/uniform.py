"""Every member counts the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights


def uniform_weights(num_members: int) -> Tensor:
    """`w_m = 1/M`, (M,) float64.

    Example:
        >>> uniform_weights(4)
        tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    return torch.full((num_members,), 1 / num_members, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Uniform(WeightRule):
    """`w_m = 1/M`."""

    fitted: ClassVar[bool] = False

    def weights(self, predictions: Predictions) -> Weights:
        """`1/M` each."""
        return Weights(values_M=uniform_weights(predictions.num_members))
