"""The user's own weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import torch

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Given(WeightRule):
    """The given values, divided by their sum.

    Attributes:
        values: one entry a member, in the members' order, >= 0, not all 0.
        normalize: whether to divide by the sum; if not, the sum should be 1 within 1e-6.
    """

    fitted: ClassVar[bool] = False

    values: Sequence[float] = ()
    normalize: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _numbers(self.values))
        for index, value in enumerate(self.values):
            if not math.isfinite(value):
                raise HyperparameterError(f"`weights.values` should be finite. Found {value} at position {index}.")
            if value < 0:
                raise HyperparameterError(f"`weights.values` should be >= 0. Found {value} at position {index}.")
        if self.values and not any(self.values):
            raise HyperparameterError("`weights.values` should have an entry > 0. Found zeros only.")
        if self.values and not self.normalize and abs(sum(self.values) - 1) > 1e-6:
            raise HyperparameterError(
                f"`weights.values` should sum to 1 where `normalize = false`. Found a sum of {sum(self.values):g}."
            )

    def check_count(self, num_members: int) -> None:
        """Raises `HyperparameterError` unless there is one value a member."""
        if len(self.values) != num_members:
            entries = "1 entry" if num_members == 1 else f"{num_members} entries"
            raise HyperparameterError(
                f"`weights.values` should have {entries} (one a member). Found {len(self.values)}."
            )

    def weights(self, predictions: Predictions) -> Weights:
        """`w_m = v_m / sum_k v_k`."""
        self.check_count(predictions.num_members)
        values_M = torch.tensor(self.values, dtype=torch.float64)
        if self.normalize:
            # the largest first: a sum of huge values does not overflow
            values_M = values_M / values_M.max()
            values_M = values_M / values_M.sum()
        return Weights(values_M=values_M)


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(values, str):
        with suppress(TypeError, ValueError):
            return tuple(float(value) for value in values)
    raise HyperparameterError(f"`weights.values` should be a list of numbers. Found {values!r}.")
