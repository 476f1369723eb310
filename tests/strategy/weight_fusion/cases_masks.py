"""Methods that keep or drop elements by chance or agreement: their cases for the common laws."""

from __future__ import annotations

import numpy as np

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import ConsensusTA, DareLinear, DareTies, Della, DellaLinear, PCBMerging


def task_arithmetic(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    return base_B + (values_KB - base_B).sum(0)


def elected_mean(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    deltas_KB = values_KB - base_B
    minus_B = deltas_KB.sum(0) < -(2.0**-22) * np.abs(deltas_KB).sum(0)
    agree_KB = np.where(minus_B, deltas_KB < 0, deltas_KB > 0)
    return base_B + (deltas_KB * agree_KB).sum(0) / np.maximum(agree_KB.sum(0), 1)


def consensus(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    deltas_KB = values_KB - base_B
    total_B = deltas_KB.sum(0)
    votes_B = (np.abs(deltas_KB) >= 0.4 * np.abs(total_B - deltas_KB)).sum(0)
    return base_B + 0.3 * np.where(votes_B >= 2, total_B, 0.0)


CASES: list[Case] = [
    Case(DareLinear(density=1.0), task_arithmetic, symmetric=True),
    Case(DareTies(density=1.0), elected_mean, symmetric=True),
    Case(DellaLinear(density=1.0, epsilon=0.0), task_arithmetic, symmetric=True),
    Case(Della(density=1.0, epsilon=0.0), elected_mean, symmetric=True),
    Case(ConsensusTA(), consensus, symmetric=True),
    Case(DellaLinear(), None),
    Case(Della(rescale="l1"), None),
    Case(PCBMerging(), None, symmetric=True),
]
