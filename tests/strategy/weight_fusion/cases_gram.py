"""Methods whose result is a combination with coefficients from inner products: their cases for the common laws."""

from __future__ import annotations

import numpy as np

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import KarcherMean, ModelStock, MultiSlerp, NuSlerp, Slerp


def _units(values_KB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms_K1 = np.linalg.norm(values_KB, axis=1, keepdims=True)
    return values_KB / norms_K1, norms_K1


def _slerp(values_KB: np.ndarray, t: float, lerp_above: float) -> np.ndarray:
    units_KB, _ = _units(values_KB)
    # half the angle from the sides of the rhombus of u_1 and u_2
    theta = 2 * np.arctan2(np.linalg.norm(units_KB[0] - units_KB[1]), np.linalg.norm(units_KB.sum(0)))
    shares = np.array([1 - t, t])
    if abs(np.cos(theta)) <= lerp_above and np.sin(theta) > 1e-6:
        shares = np.sin(shares * theta) / np.sin(theta)
    return shares @ values_KB


def _multislerp(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    deltas_KB = values_KB - base_B
    units_KB, norms_K1 = _units(deltas_KB)
    mean_B = units_KB.mean(0)
    if np.linalg.norm(mean_B) < 1e-7:
        return values_KB.mean(0)
    return base_B + norms_K1.mean() * mean_B / np.linalg.norm(mean_B)


def _karcher(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    units_KB, norms_K1 = _units(values_KB)
    point_B = units_KB.mean(0)
    if np.linalg.norm(point_B) < 1e-7:
        return values_KB.mean(0)
    for _ in range(60):
        point_B = point_B / np.linalg.norm(point_B)
        cosines_K1 = np.clip(units_KB @ point_B, -1, 1)[:, None]
        logarithms_KB = (units_KB - cosines_K1 * point_B) / np.sinc(np.arccos(cosines_K1) / np.pi)
        tangent_B = logarithms_KB.mean(0)
        length = np.linalg.norm(tangent_B)
        point_B = np.cos(length) * point_B + np.sinc(length / np.pi) * tangent_B
    return norms_K1.mean() * point_B / np.linalg.norm(point_B)


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
    Case(Slerp(t=0.3), lambda values_KB, base_B: _slerp(values_KB, 0.3, 0.9995), models=2),
    Case(NuSlerp(), lambda values_KB, base_B: base_B + _slerp(values_KB - base_B, 0.5, 1.0), models=2),
    Case(MultiSlerp(), _multislerp, symmetric=True),
    Case(KarcherMean(), _karcher, linear=True, symmetric=True),
    Case(ModelStock(), _model_stock, symmetric=True),
]
