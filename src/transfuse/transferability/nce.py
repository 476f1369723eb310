"""`nce`: how much the source's predicted classes leave open about the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import xlogy

from transfuse.transferability.score import Array, Labels, Score, one_hot


@dataclass(frozen=True, kw_only=True)
class Nce(Score):
    """`-H(Y | Z)`, Z the source's arg-max class; in [-log C, 0].

    Reference:
        Tran et al. 2019, "Transferability and hardness of supervised classification tasks", 1908.08142.
    """

    of: ClassVar[str] = "probabilities"

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score."""
        joint_CZ = one_hot(labels_N).T @ np.eye(values.shape[1])[values.argmax(1)] / len(labels_N)
        marginal_Z = joint_CZ.sum(0)
        # -H(Y | Z) = sum p(y, z) log(p(y, z) / p(z))
        return float(xlogy(joint_CZ, joint_CZ).sum() - xlogy(marginal_Z, marginal_Z).sum())
