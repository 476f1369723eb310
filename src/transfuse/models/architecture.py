"""An architecture as data: what the `model` group composes to, hashable for the store and able to build networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from transfuse.randomness import global_stream
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError, Task


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network's recipe.

    Attributes:
        name: the config's name, such as `cnn`.
        recipe: `_target_` and every size, plain values only; part of every base model's key.
        make: builds the network: `make(input_shape=..., tasks=...)`.
        plain: the same with one backbone for all tasks, where this one shares in another way; otherwise None.
    """

    name: str
    recipe: Mapping[str, Any]
    make: Callable[..., nn.Module] = field(repr=False, compare=False)
    plain: Architecture | None = field(default=None, repr=False, compare=False)

    @property
    def layout(self) -> str:
        """Canonical JSON of the recipe: equal layouts build equal state dict keys and shapes for equal data."""
        return json.dumps(self.recipe, sort_keys=True, separators=(",", ":"))

    @property
    def hard(self) -> Architecture:
        """The same with one backbone for all tasks."""
        return self.plain or self

    def of(self, tasks: tuple[Task, ...]) -> Architecture:
        """What networks of these tasks are made by: with a single one there is nothing to share."""
        return self if len(tasks) > 1 else self.hard

    def resized(self, **sizes: Any) -> Architecture:
        """The same with other sizes, of the recipe's own names.

        Raises:
            HyperparameterError: the recipe has no such size, with the nearest names.
        """
        for name in sizes:
            if name not in self.recipe:
                raise HyperparameterError(f"model={self.name} has no `{name}`.{nearest(name, self.recipe)}")
        plain = {name: list(value) if isinstance(value, Sequence) else value for name, value in sizes.items()}
        return replace(
            self,
            recipe={**self.recipe, **plain},
            make=partial(self.make, **sizes),
            plain=None if self.plain is None else self.plain.resized(**sizes),
        )

    def build(self, input_shape: tuple[int, ...], tasks: tuple[Task, ...], generator: torch.Generator) -> nn.Module:
        """A network with fresh weights drawn from `generator`: inputs (N, *input_shape) to {task: (N, C)}."""
        with global_stream(generator):
            return self.make(input_shape=input_shape, tasks=tasks)
