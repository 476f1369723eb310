"""Methods that trim, elect or scale task vectors: their cases for the common laws."""

from __future__ import annotations

import numpy as np

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import SCE, Breadcrumbs, BreadcrumbsTies, MagMax, TaskArithmetic, Ties, WiseFT


def ranked(deltas: np.ndarray, first: int, end: int) -> np.ndarray:
    """The values at ranks [first, end) by magnitude, zeros for others."""
    order = np.argsort(-np.abs(deltas), kind="stable")[first:end]
    kept = np.zeros_like(deltas)
    kept[order] = deltas[order]
    return kept


def elected(votes_KB: np.ndarray) -> np.ndarray:
    total_B, mass_B = votes_KB.sum(0), np.abs(votes_KB).sum(0)
    return np.where(np.abs(total_B) <= mass_B * 2.0**-22, 1.0, np.sign(total_B))


def agreeing(votes_KB: np.ndarray) -> np.ndarray:
    return np.where(np.sign(votes_KB) == elected(votes_KB), votes_KB, 0.0)


def ties(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    count = max(1, values_KB.shape[1] // 5)
    kept_KB = agreeing(np.stack([ranked(delta_B, 0, count) for delta_B in values_KB - base_B]))
    return base_B + kept_KB.sum(0) / np.maximum((kept_KB != 0).sum(0), 1)


def band(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    size = values_KB.shape[1]
    kept = max(1, size * 9 // 10)
    dropped = min(size // 100, size - kept)
    return np.stack([ranked(delta_B, dropped, dropped + kept) for delta_B in values_KB - base_B])


def breadcrumbs(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    return base_B + 0.3 * band(values_KB, base_B).sum(0)


def breadcrumbs_ties(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    return base_B + 0.3 * agreeing(band(values_KB, base_B)).sum(0)


def magmax(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    reversed_KB = (values_KB - base_B)[::-1]
    winner_B = np.abs(reversed_KB).argmax(0)  # the first of the reversed is the last
    return base_B + 0.5 * np.take_along_axis(reversed_KB, winner_B[None], axis=0)[0]


def sce(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    deltas_KB = values_KB - base_B
    energy_K1 = np.square(deltas_KB).mean(1, keepdims=True) if deltas_KB.shape[1] else np.ones((len(deltas_KB), 1))
    weights_KB = energy_K1 * (np.sign(deltas_KB) == elected(deltas_KB))
    return base_B + (weights_KB * deltas_KB).sum(0) / np.where(weights_KB.any(0), weights_KB.sum(0), 1.0)


CASES: list[Case] = [
    Case(WiseFT(), lambda values_KB, base_B: 0.5 * (values_KB[0] + base_B), models=1),
    Case(
        TaskArithmetic(scale=0.4),
        lambda values_KB, base_B: base_B + 0.4 * (values_KB - base_B).sum(0),
        symmetric=True,
    ),
    Case(TaskArithmetic(normalize=True), lambda values_KB, base_B: values_KB.mean(0), linear=True, symmetric=True),
    Case(Ties(), ties, symmetric=True),
    Case(Breadcrumbs(), breadcrumbs, symmetric=True),
    Case(BreadcrumbsTies(), breadcrumbs_ties, symmetric=True),
    Case(SCE(), sce, symmetric=True),
    Case(MagMax(), magmax),
]
