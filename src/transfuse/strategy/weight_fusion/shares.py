"""Weights of methods that go between models and never beyond them."""

from __future__ import annotations

from collections.abc import Sequence

from transfuse.strategy.weight_fusion.linear import linear_coefficients
from transfuse.types import HyperparameterError


def positive_shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights >= 0, divided by their sum.

    Raises:
        HyperparameterError: a negative weight, or a sum of 0.

    Example:
        >>> positive_shares([3.0, 1.0])
        (0.75, 0.25)
    """
    if any(weight < 0 for weight in weights):
        raise HyperparameterError(f"`weights` should be >= 0. Found `weights = {list(weights)}`.")
    return linear_coefficients(weights, normalize=True)
