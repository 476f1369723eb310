"""What the common laws of per-tensor weight fusions ask of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from transfuse.strategy.weight_fusion import TensorFusion

Reference = Callable[[np.ndarray, np.ndarray], np.ndarray]
Statistics = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """A per-tensor method and what its formula promises.

    `reference` computes the fused values of one float64 tensor (K, n) and base (n,), written independently in NumPy;
    None where the formula needs more than these values (shape, chance). `models`: how many models the laws fuse.
    `linear`: one model gives itself, equal models give that model. `symmetric`: their order does not matter.
    `statistics`: what is handed in as measured on a model, made from its state dict; None where the method takes none.
    """

    method: TensorFusion
    reference: Reference | None
    linear: bool = False
    symmetric: bool = False
    models: int = 3
    statistics: Statistics | None = None

    def measured(self, states: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]] | None:
        return None if self.statistics is None else [self.statistics(state) for state in states]

    def __str__(self) -> str:
        return self.method.name.rpartition("/")[2]
