"""Baselines: what every other strategy is compared with."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from transfuse.strategy.base import Strategy
from transfuse.types import ProblemKind


@dataclass(frozen=True, kw_only=True)
class Baseline(Strategy, ABC):
    """A trivial reference made of trained base models."""

    family: ClassVar[str] = "baseline"
    problems: ClassVar[frozenset[ProblemKind]] = frozenset({"single_task", "multi_task", "transfer"})
