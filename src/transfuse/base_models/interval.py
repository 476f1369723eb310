"""An interval of numbers that settings are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from transfuse.conformity import conforms, hints, readable
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Numbers in [low, high].

    Attributes:
        low: smallest number; > 0 with `log`.
        high: largest number, >= low.
        log: whether the logarithm is uniform instead of the number.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= self.high < math.inf:
            raise HyperparameterError(f"`low` should be at most `high` ({self.high}). Found `low = {self.low}`.")
        if self.log and self.low <= 0:
            raise HyperparameterError(f"`low` should be > 0 with log. Found `low = {self.low}`.")

    def draw(self, generator: torch.Generator, *, whole: bool) -> float | int:
        """One number; the nearest whole one where `whole`.

        Example:
            >>> Interval(low=16, high=16).draw(torch.Generator(), whole=True)
            16
        """
        uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
        if self.log:
            # x = low^(1 - u) high^u
            value = math.exp((1 - uniform) * math.log(self.low) + uniform * math.log(self.high))
        else:
            value = (1 - uniform) * self.low + uniform * self.high
        value = min(max(value, self.low), self.high)  # rounding may leave it by one bit
        return round(value) if whole else value


def read_interval(spec: Any) -> Interval:
    """The interval that a mapping `{low, high, log}` describes.

    Raises:
        HyperparameterError: unknown or missing keys, wrong types, or bounds out of order.
    """
    types = hints(Interval)
    if not isinstance(spec, Mapping):
        raise HyperparameterError(f"`low` and `high` should be given as a mapping. Found {spec!r}.")
    for name, value in spec.items():
        if name not in types:
            raise HyperparameterError(f"`{name}` is no key of an interval.{nearest(name, types)}")
        if not conforms(value, types[name]):
            raise HyperparameterError(f"`{name}` should be {readable(types[name])}. Found `{name} = {value!r}`.")
    for name in ("low", "high"):
        if name not in spec:
            raise HyperparameterError(f"`{name}` is missing.")
    return Interval(**spec)
