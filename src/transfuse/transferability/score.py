"""The contract of every score, and the checks of what it gets.

Dimensions in tensor names: N examples, D features, C classes, Z classes of the source, T targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from transfuse.types import HyperparameterError, IncompatibleScoreError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


class Score(ABC):
    """A number for a source, higher is better; a pure function of its arguments, in float64.

    Class attributes:
        of: what it reads: `features` (N, D) or `probabilities` (N, Z) of the source's head.
        regression: whether it takes real targets (N, T) as well as classes.
    """

    of: ClassVar[str] = "features"
    regression: ClassVar[bool] = False

    def __call__(self, inputs: Any, labels: Any) -> float:
        """The score.

        Args:
            inputs: (N, D) features, or (N, Z) probabilities; not changed.
            labels: (N,) class indices; for scores that take regression also (N,) or (N, T) floats.

        Raises:
            HyperparameterError: too few examples or classes, lengths that differ, values that are not finite.
            IncompatibleScoreError: the score does not take such targets.
        """
        values = _matrix(inputs, self.of)
        targets = _array(labels)
        if len(values) != len(targets):
            raise HyperparameterError(
                f"`labels` should have one entry an example. Found {len(targets)} for {len(values)} examples."
            )
        if targets.dtype.kind == "f":
            if not self.regression:
                raise IncompatibleScoreError(
                    f"{type(self).__name__} is for classes. Found real targets. Did you mean score=logme?"
                )
            if not np.isfinite(targets).all():
                raise HyperparameterError("`labels` should be finite. Found NaN or infinity.")
            return float(self.of_targets(values, targets.reshape(len(targets), -1).astype(np.float64)))
        return float(self.of_classes(values, _classes(targets)))

    @abstractmethod
    def of_classes(self, values: Array, labels_N: Labels) -> float:
        """The score for classes 0..C-1, each of which has an example."""

    def of_targets(self, values: Array, targets_NT: Array) -> float:
        """The score for real targets."""
        raise NotImplementedError


def one_hot(labels_N: Labels) -> Array:
    """(N, C)."""
    return np.eye(int(labels_N.max()) + 1)[labels_N]


def _matrix(inputs: Any, kind: str) -> Array:
    values = np.array(_array(inputs), dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise HyperparameterError(f"`{kind}` should be (N, D) with N >= 2. Found shape {values.shape}.")
    if not np.isfinite(values).all():
        raise HyperparameterError(f"`{kind}` should be finite. Found NaN or infinity.")
    if kind == "probabilities" and ((values < 0).any() or (abs(values.sum(1) - 1) > 1e-4).any()):
        raise HyperparameterError(
            "`probabilities` should be >= 0 with rows that sum to 1. Did you mean the softmax of these logits?"
        )
    return values


def _array(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _classes(labels: NDArray[Any]) -> Labels:
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise HyperparameterError(
            f"`labels` should be (N,) class indices, or floats for a regression. Found {labels.dtype} of shape "
            f"{labels.shape}."
        )
    if (labels.astype(np.int64) < 0).any():
        raise HyperparameterError("`labels` should be >= 0. Found a negative one. Leave unlabelled examples out.")
    classes, dense_N = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise HyperparameterError(f"`labels` should have at least 2 classes. Found {len(classes)}.")
    return dense_N.astype(np.int64)
