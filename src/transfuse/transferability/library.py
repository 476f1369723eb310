"""`transfuse.transferability`: one score of one source."""

from __future__ import annotations

import dataclasses
from typing import Any

from transfuse.suggest import nearest
from transfuse.transferability.gbc import Gbc
from transfuse.transferability.h_score import HScore
from transfuse.transferability.leep import Leep
from transfuse.transferability.linear_probe import LinearProbeAccuracy
from transfuse.transferability.logme import LogMe
from transfuse.transferability.nce import Nce
from transfuse.transferability.nearest_neighbors import NearestNeighbors
from transfuse.transferability.score import Score
from transfuse.transferability.transrate import TransRate
from transfuse.types import HyperparameterError

_SCORES: dict[str, type[Score]] = {
    each.__module__.rpartition(".")[2]: each
    for each in (Gbc, HScore, Leep, LinearProbeAccuracy, LogMe, Nce, NearestNeighbors, TransRate)
}


def transferability(features_ND: Any, labels: Any, *, score: str, **fields: Any) -> float:
    """How well a source fits a target, without training; higher is better.

    Scores rank sources. They do not say which method of transfer is best, and no score has a meaning across targets.

    Args:
        features_ND: (N, D) penultimate features of the target's training inputs, in evaluation mode; for `leep` and
            `nce` the (N, Z) probabilities of the source's own classes. Tensor or array; not changed.
        labels: (N,) class indices; floats (N,) or (N, T) for `logme` and `linear_probe`.
        score: `logme`, `h_score`, `linear_probe`, `nearest_neighbors`, `leep`, `nce`, `gbc` or `transrate`.
        fields: of the score.

    Raises:
        HyperparameterError: an unknown score or field (with the nearest), or data it cannot work on.
        IncompatibleScoreError: the score does not take such targets.
        ScoreSaturatedError: the score would be the same for every source.

    Example:
        >>> features_ND = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]]
        >>> transferability(features_ND, [0, 0, 1, 1], score="nearest_neighbors", k=1)
        1.0
    """
    if score not in _SCORES:
        raise HyperparameterError(
            f"`score` should be one of {', '.join(_SCORES)}. Found `score = {score}`.{nearest(score, _SCORES)}"
        )
    known = [each.name for each in dataclasses.fields(_SCORES[score])]  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            raise HyperparameterError(f"score={score} has no field `{name}`.{nearest(name, known)}")
    return _SCORES[score](**fields)(features_ND, labels)
