"""`nearest_neighbors`: leave-one-out accuracy of the nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from transfuse.transferability.score import Array, Labels, Score, one_hot
from transfuse.types import HyperparameterError

_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class NearestNeighbors(Score):
    """Share of examples whose k nearest others vote for their class; ties go to the lowest label.

    Attributes:
        k: neighbors, >= 1.
        metric: `euclidean` or `cosine` distance.
    """

    k: int = 5
    metric: Literal["euclidean", "cosine"] = "euclidean"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise HyperparameterError(f"`k` should be at least 1. Found `k = {self.k}`.")
        if self.metric not in ("euclidean", "cosine"):
            raise HyperparameterError(f"`metric` should be euclidean or cosine. Found `metric = {self.metric}`.")

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The accuracy."""
        num_examples = len(values)
        neighbors = min(self.k, num_examples - 1)
        votes_NC = one_hot(labels_N)
        hits = 0
        for start in range(0, num_examples, _ROWS):
            rows = np.arange(start, min(start + _ROWS, num_examples))
            distance_RN = cdist(values[rows], values, self.metric)
            distance_RN[np.arange(len(rows)), rows] = np.inf
            nearest_RK = np.argsort(distance_RN, axis=1, kind="stable")[:, :neighbors]
            hits += int((votes_NC[nearest_RK].sum(1).argmax(1) == labels_N[rows]).sum())
        return hits / num_examples
