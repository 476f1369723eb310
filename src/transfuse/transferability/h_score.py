"""`h_score`: how much of the features' variance lies between classes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from transfuse.transferability.score import Array, Labels, Score
from transfuse.types import ScoreSaturatedError, TransferabilityWarning


@dataclass(frozen=True, kw_only=True)
class HScore(Score):
    """`tr((1 - s) pinv(S_s) cov(E[f | y]))`, S_s the Ledoit-Wolf covariance with shrinkage s.

    Attributes:
        regularize: false: `tr(pinv(cov f) cov(E[f | y]))`, which is C - 1 for any source once N <= D.

    Reference:
        Bao et al. 2019, "An information-theoretic approach to transferability"; Ibrahim et al. 2021, "Newer is not
        always better", 2110.06893.
    """

    regularize: bool = True

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score."""
        num_examples, num_features = values.shape
        if not self.regularize and num_examples <= num_features:
            raise ScoreSaturatedError(
                f"Without shrinkage the H-score is C - 1 for every source with N <= D. Found N = {num_examples}, "
                f"D = {num_features}. Did you mean regularize=true?"
            )
        centered_ND = values - values.mean(0)
        means_ND = np.stack([centered_ND[labels_N == label].mean(0) for label in range(labels_N.max() + 1)])[labels_N]
        between_DD = np.cov(means_ND, rowvar=False).reshape(num_features, num_features)
        if not self.regularize:
            within_DD = np.cov(centered_ND, rowvar=False).reshape(num_features, num_features)
            return float(np.trace(np.linalg.pinv(within_DD, rcond=1e-15) @ between_DD))
        covariance_DD, shrinkage = ledoit_wolf(centered_ND)
        if shrinkage == 1.0:
            warnings.warn(
                "Shrinkage is 1: no class signal is visible in the features, and the score is 0.",
                TransferabilityWarning,
                stacklevel=2,
            )
        return float((1 - shrinkage) * np.trace(np.linalg.pinv(covariance_DD) @ between_DD))


def ledoit_wolf(centered_ND: Array) -> tuple[Array, float]:
    """Covariance `(1 - s) S + s mu I` of centered data, and s.

    Reference:
        Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
    """
    num_examples, num_features = centered_ND.shape
    sample_DD = centered_ND.T @ centered_ND / num_examples
    mu = np.trace(sample_DD) / num_features
    squares_ND = centered_ND**2
    beta = float((squares_ND.T @ squares_ND / num_examples - sample_DD**2).sum()) / (num_features * num_examples)
    delta = float(((sample_DD - mu * np.eye(num_features)) ** 2).sum()) / num_features
    shrinkage = 0.0 if min(beta, delta) == 0 else min(beta, delta) / delta
    return (1 - shrinkage) * sample_DD + shrinkage * mu * np.eye(num_features), shrinkage
