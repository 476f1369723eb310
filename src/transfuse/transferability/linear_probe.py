"""`linear_probe`: cross-validated accuracy of a ridge classifier on the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold

from transfuse.transferability.score import Array, Labels, Score
from transfuse.types import HyperparameterError

_ALPHAS = tuple(float(10.0**power) for power in range(-4, 5))


@dataclass(frozen=True, kw_only=True)
class LinearProbeAccuracy(Score):
    """Accuracy (R2 for real targets) over `folds` folds of a ridge model, its penalty by closed-form leave-one-out.

    Attributes:
        folds: >= 2; stratified for classes, as many as the smallest class allows.
    """

    regression: ClassVar[bool] = True

    folds: int = 5

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise HyperparameterError(f"`folds` should be at least 2. Found `folds = {self.folds}`.")

    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The accuracy."""
        folds = max(2, min(self.folds, int(np.bincount(labels_N).min())))
        plain = KFold(folds, shuffle=True, random_state=0)
        split = StratifiedKFold(folds, shuffle=True, random_state=0) if np.bincount(labels_N).min() >= 2 else plain
        hits = 0
        for train, test in split.split(values, labels_N):
            model = RidgeClassifierCV(alphas=_ALPHAS).fit(values[train], labels_N[train])
            hits += int((model.predict(values[test]) == labels_N[test]).sum())
        return hits / len(labels_N)

    def of_targets(self, values: Array, targets_NT: Array) -> float:
        """R2 of the held-out predictions, mean over targets."""
        found_NT = np.empty_like(targets_NT)
        for train, test in KFold(min(self.folds, len(values)), shuffle=True, random_state=0).split(values):
            model = RidgeCV(alphas=_ALPHAS).fit(values[train], targets_NT[train])
            found_NT[test] = model.predict(values[test]).reshape(len(test), -1)
        return float(r2_score(targets_NT, found_NT))
