"""`leep`: the log likelihood of target classes through the source's classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from transfuse.transferability.score import Array, Labels, Score, one_hot


@dataclass(frozen=True, kw_only=True)
class Leep(Score):
    """`mean_i log sum_z P(y_i | z) p_iz`, P(y | z) from the soft joint distribution; at most 0.

    Reference:
        Nguyen et al. 2020, "LEEP: a new measure to evaluate transferability of learned representations", 2002.12462.
    """

    of: ClassVar[str] = "probabilities"

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score."""
        joint_CZ = one_hot(labels_N).T @ values / len(labels_N)
        given_CZ = joint_CZ / np.maximum(joint_CZ.sum(0), np.finfo(float).tiny)
        return float(np.log((values @ given_CZ.T)[np.arange(len(labels_N)), labels_N]).mean())
