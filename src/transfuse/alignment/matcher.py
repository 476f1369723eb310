"""The `align` group: how the units of one network are matched with those of another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from transfuse.alignment.specification import Specification
from transfuse.types import HyperparameterError


class Trainer(Protocol):
    """Trains a network on the problem's training data, in place, and gives it back."""

    def __call__(self, network: nn.Module, *, epochs: int, lr: float) -> nn.Module:
        """The network with its best weights by validation."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two networks of one architecture, and what may be used to match them.

    Attributes:
        specification: of the other network.
        reference: stays as it is.
        other: is permuted.
        inputs: (N, ...) of the training data.
        generator: of all chance.
        train: for matchers that learn.
    """

    specification: Specification
    reference: nn.Module
    other: nn.Module
    inputs: Tensor
    generator: torch.Generator
    train: Trainer


@dataclass(frozen=True, kw_only=True)
class Matcher(ABC):
    """A way to match units.

    Class attributes:
        most: the largest number of models that it is meant for, or None.

    Attributes:
        spec: patterns of symbols -> `fixed`: units that stay where they are; None: all may move.
    """

    most: ClassVar[int | None] = None

    spec: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """The config's name, such as `weight_matching`."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def match(self, pair: Pair) -> dict[str, Tensor]:
        """The order of every symbol of the other network."""


@dataclass(frozen=True, kw_only=True)
class Unaligned:
    """`align=none`: models are fused as they are."""


def require_positive(name: str, value: int) -> None:
    """Raises unless a count is an integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise HyperparameterError(f"`{name}` should be an integer >= 1. Found `{name} = {value}`.")
