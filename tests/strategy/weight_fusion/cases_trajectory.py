"""Methods that average snapshots of one training: their cases for the common laws."""

from __future__ import annotations

import numpy as np

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import EMA, LAWA, SWA


def recursion(values_KB: np.ndarray, decay: float) -> np.ndarray:
    mean_B = values_KB[0]
    for values_B in values_KB[1:]:
        mean_B = decay * mean_B + (1 - decay) * values_B
    return mean_B


CASES: list[Case] = [
    Case(SWA(), lambda values_KB, base_B: values_KB.mean(0), linear=True, symmetric=True),
    Case(EMA(), lambda values_KB, base_B: recursion(values_KB, 0.999), linear=True),
    Case(EMA(decay=0.3), lambda values_KB, base_B: recursion(values_KB, 0.3), linear=True),
    Case(LAWA(), lambda values_KB, base_B: values_KB[-5:].mean(0), linear=True, symmetric=True),
]
