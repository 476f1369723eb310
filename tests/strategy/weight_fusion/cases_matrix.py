"""Methods of whole matrices: their cases for the common laws."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tests.strategy.weight_fusion.case import Case
from transfuse.strategy.weight_fusion import WUDI, FisherMerging, IsoC, IsoCTS, RegMean, TSVMerge


def fisher_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """F = x^2 + 0.1, which the reference can make too."""
    floating = {key: value.detach().double() for key, value in state.items() if value.is_floating_point()}
    return {key: value.square() + 0.1 for key, value in floating.items()}


def fisher(values_KB: np.ndarray, base_B: np.ndarray) -> np.ndarray:
    fisher_KB = values_KB**2 + 0.1
    return (fisher_KB * values_KB).sum(0) / fisher_KB.sum(0)


def grams_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A full Gram matrix for every matrix."""
    matrices = {key: value.detach().double() for key, value in state.items() if value.dim() == 2}
    return {key: value.T @ value + torch.eye(value.shape[1]) for key, value in matrices.items()}


CASES: list[Case] = [
    Case(FisherMerging(), fisher, linear=True, symmetric=True, statistics=fisher_of),
    Case(FisherMerging(normalize="l2"), None, linear=True, symmetric=True, statistics=fisher_of),
    Case(RegMean(), None, linear=True, symmetric=True, statistics=grams_of),
    Case(IsoC(), None, symmetric=True),
    Case(IsoCTS(), None, symmetric=True),
    Case(TSVMerge(), None, symmetric=True),
    Case(WUDI(), None, symmetric=True),
    Case(WUDI(solver="exact"), None, symmetric=True),
]
