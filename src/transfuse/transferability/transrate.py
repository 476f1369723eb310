"""`transrate`: the coding rate of all features minus that within classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfuse.transferability.gbc import without_single
from transfuse.transferability.score import Array, Labels, Score
from transfuse.types import HyperparameterError


@dataclass(frozen=True, kw_only=True)
class TransRate(Score):
    """`R(f) - mean_c R(f_c)`, `R(f) = 1/2 logdet(I + f^T f / (n epsilon))`, f centered.

    Three formulas of this name are in use, with values that differ by a factor of five: compare within one only.
    Classes with one example are left out, with a warning.

    Attributes:
        epsilon: distortion, > 0.
        normalize: `trace`: f is divided by `sqrt(tr(f f^T))` first, against the effect of its scale; `none`.
        weights: of classes: by `size`, or `equal`.

    Reference:
        Huang et al. 2022, "Frustratingly easy transferability estimation", 2106.09362.
    """

    epsilon: float = 1e-4
    normalize: Literal["trace", "none"] = "trace"
    weights: Literal["size", "equal"] = "size"

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise HyperparameterError(f"`epsilon` should be > 0. Found `epsilon = {self.epsilon}`.")
        for name, found, known in (
            ("normalize", self.normalize, ("trace", "none")),
            ("weights", self.weights, ("size", "equal")),
        ):
            if found not in known:
                raise HyperparameterError(f"`{name}` should be {' or '.join(known)}. Found `{name} = {found}`.")

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score."""
        members = without_single([values[labels_N == label] for label in range(labels_N.max() + 1)])
        every = np.concatenate(members)
        center = every.mean(0)
        scale = np.sqrt(((every - center) ** 2).sum()) if self.normalize == "trace" else 1.0
        rates = [self._rate((each - center) / scale) for each in members]
        sizes = [len(each) if self.weights == "size" else 1 for each in members]
        return self._rate((every - center) / scale) - float(np.average(rates, weights=sizes))

    def _rate(self, values: Array) -> float:
        singular = np.linalg.svd(values, compute_uv=False)
        return 0.5 * float(np.log1p(singular**2 / (len(values) * self.epsilon)).sum())
