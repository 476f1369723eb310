"""Transferability: how well a source's features or outputs fit a target, without training.

The package is also the function: `transfuse.transferability(features, labels, score="logme")`.
"""

import sys
from types import ModuleType
from typing import Any

from transfuse.transferability.gbc import Gbc
from transfuse.transferability.h_score import HScore
from transfuse.transferability.leep import Leep
from transfuse.transferability.library import transferability
from transfuse.transferability.linear_probe import LinearProbeAccuracy
from transfuse.transferability.logme import LogMe
from transfuse.transferability.nce import Nce
from transfuse.transferability.nearest_neighbors import NearestNeighbors
from transfuse.transferability.score import Score
from transfuse.transferability.transrate import TransRate

__all__ = [
    "Gbc",
    "HScore",
    "Leep",
    "LinearProbeAccuracy",
    "LogMe",
    "Nce",
    "NearestNeighbors",
    "Score",
    "TransRate",
    "transferability",
]


class _Callable(ModuleType):
    """A package that is called like its function, since both have one name in `transfuse`."""

    def __call__(self, *arguments: Any, **fields: Any) -> float:
        return transferability(*arguments, **fields)


sys.modules[__name__].__class__ = _Callable
