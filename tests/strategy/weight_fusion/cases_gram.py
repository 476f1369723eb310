"""Methods whose result is a combination with coefficients from inner products: their cases for the common laws."""

from __future__ import annotations

import numpy as np

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import KarcherMean, ModelStock, MultiSlerp, NuSlerp, Slerp


def _model_stock(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    deltas = values_KB - base_B
    norms = np.linalg.norm(deltas, axis=1, keepdims=True)
    cosines = deltas @ deltas.T / np.maximum(norms @ norms.T, 1e-300)
    num_models = len(values_KB)
    cosine = cosines[np.triu_indices(num_models, 1)].mean()
    denominator = 1 + (num_models - 1) * cosine
    t = np.clip(num_models * cosine / denominator, 0, 1) if denominator > 1e-9 else 0.0
    return t * values_KB.mean(0) + (1 - t) * base_B


CASES: list[Case] = [
    Case(Slerp(), None, models=2),
    Case(NuSlerp(), None, models=2),
    Case(MultiSlerp(), None),
    Case(KarcherMean(), None),
    Case(ModelStock(), _model_stock, symmetric=True),
]
