"""The temperature under which predictions are most likely.

Dimensions in tensor names: E events, O outcomes.
"""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar
from torch import Tensor

BOUND = 3.0  # |log T| at most


def optimal_temperature(log_probs_EO: Tensor, outcomes_E: Tensor) -> float:
    """`argmin_T -mean_e log softmax(log p_e / T)_{y_e}` over log T in [-3, 3].

    The objective is convex in 1 / T, so its minimum is unique; it is found by bounded scalar minimisation in log T.

    Args:
        log_probs_EO: (E, O) log-probabilities, or any logits.
        outcomes_E: (E,) int64 in [0, O): what came true.

    Returns:
        T > 0; `exp(3)` or `exp(-3)`, about, where the optimum is not inside.

    Example:
        >>> import torch
        >>> log_probs_EO = torch.tensor([[0.9, 0.1]] * 10).log()
        >>> round(optimal_temperature(log_probs_EO, torch.tensor([0] * 9 + [1])), 4)
        1.0

    Reference:
        Guo, Pleiss, Sun & Weinberger 2017 (1706.04599).
    """
    z_EO = log_probs_EO.detach().double().cpu()
    index_E1 = outcomes_E.cpu()[:, None]

    def nll(log_t: float) -> float:
        return -float((z_EO / math.exp(log_t)).log_softmax(dim=-1).gather(1, index_E1).mean())

    found = minimize_scalar(nll, bounds=(-BOUND, BOUND), method="bounded", options={"xatol": 1e-10})
    return math.exp(float(found.x))
