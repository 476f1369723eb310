"""Running statistics of BatchNorm where there are no data to measure them on: averaged.

Dimensions in tensor names: K models, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfuse.state_dict import StateDict


def average_statistics(state_dicts: Sequence[StateDict], pairs: Mapping[str, str]) -> dict[str, Tensor]:
    """Statistics of the members' pooled activations, if each had seen as many examples.

    mean = mean_k m_k, variance = mean_k v_k + var_k m_k (law of total variance), in float64, rounded once.

    Args:
        state_dicts: K state dicts.
        pairs: key of each running mean -> key of its running variance.

    Returns:
        Both keys of each pair -> (F,) in the first model's type.

    Example:
        >>> first, second = ({"m": torch.tensor([m]), "v": torch.tensor([v])} for m, v in [(0.0, 1.0), (2.0, 3.0)])
        >>> average_statistics([first, second], {"m": "v"})
        {'m': tensor([1.]), 'v': tensor([3.])}
    """
    averaged: dict[str, Tensor] = {}
    for mean_key, variance_key in pairs.items():
        means_KF, variances_KF = _stacked(state_dicts, mean_key), _stacked(state_dicts, variance_key)
        first = state_dicts[0]
        averaged[mean_key] = means_KF.mean(0).to(first[mean_key].dtype)
        # mean(v) + var(m)
        variance_F = variances_KF.mean(0) + means_KF.var(0, correction=0)
        averaged[variance_key] = variance_F.to(first[variance_key].dtype)
    return averaged


def _stacked(state_dicts: Sequence[StateDict], key: str) -> Tensor:
    device = state_dicts[0][key].device
    return torch.stack([state[key].to(device, torch.float64) for state in state_dicts])
