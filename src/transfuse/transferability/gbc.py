"""`gbc`: how little Gaussian classes overlap.

Dimensions in tensor names: D features, C classes, P principal components.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transfuse.transferability.score import Array, Labels, Score
from transfuse.types import HyperparameterError, TransferabilityWarning


@dataclass(frozen=True, kw_only=True)
class Gbc(Score):
    """`-sum over i != j of exp(-D_B(i, j))`, D_B the Bhattacharyya distance of Gaussian classes; in [-C (C - 1), 0].

    Classes with one example are left out, with a warning.

    Attributes:
        covariance: `spherical` (the mean variance of a class; the determinants count one dimension, as in published
            code) or `diagonal`.
        dimensions: principal components that are kept; None: all features.
        floor: smallest variance of a feature within a class, > 0.

    Reference:
        Pandy et al. 2022, "Transferability estimation using Bhattacharyya class separability", 2111.12780.
    """

    covariance: Literal["spherical", "diagonal"] = "spherical"
    dimensions: int | None = 64
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if self.covariance not in ("spherical", "diagonal"):
            raise HyperparameterError(
                f"`covariance` should be spherical or diagonal. Found `covariance = {self.covariance}`."
            )
        if self.dimensions is not None and self.dimensions < 1:
            raise HyperparameterError(f"`dimensions` should be at least 1. Found `dimensions = {self.dimensions}`.")
        if not self.floor > 0:
            raise HyperparameterError(f"`floor` should be > 0. Found `floor = {self.floor}`.")

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score."""
        if self.dimensions is not None and self.dimensions < values.shape[1]:
            centered_ND = values - values.mean(0)
            _, _, axes_DD = np.linalg.svd(centered_ND, full_matrices=False)
            values = centered_ND @ axes_DD[: self.dimensions].T
        members = [values[labels_N == label] for label in range(labels_N.max() + 1)]
        members = without_single(members)
        means_CD = np.stack([each.mean(0) for each in members])
        variances_CD = np.maximum([each.var(0, ddof=1) for each in members], self.floor)
        if self.covariance == "spherical":
            variances_CD = variances_CD.mean(1, keepdims=True)
        total = 0.0
        for first in range(len(members)):
            for second in range(len(members)):
                if first != second:
                    total += np.exp(-_bhattacharyya(means_CD[[first, second]], variances_CD[[first, second]]))
        if total < 1e-12:
            warnings.warn(
                "All classes are far apart: the score underflows to 0 and ranks nothing.",
                TransferabilityWarning,
                stacklevel=2,
            )
        return -float(total)


def without_single(members: list[Array]) -> list[Array]:
    """Classes with two examples or more; others are left out, with a warning."""
    kept = [each for each in members if len(each) > 1]
    if len(kept) < len(members):
        warnings.warn(
            f"{len(members) - len(kept)} classes with one example are left out.", TransferabilityWarning, stacklevel=3
        )
    if len(kept) < 2:
        raise HyperparameterError(f"`labels` should have at least 2 classes of 2 examples. Found {len(kept)}.")
    return kept


def _bhattacharyya(means_2D: Array, variances_2D: Array) -> float:
    """1/8 d^T S^-1 d + 1/2 log(det S / sqrt(det S1 det S2)), S the mean of the two."""
    mean_D = variances_2D.mean(0)
    distance = ((means_2D[0] - means_2D[1]) ** 2 / mean_D).sum() / 8
    return float(distance + 0.5 * (np.log(mean_D) - 0.5 * np.log(variances_2D).sum(0)).sum())
