"""The likelihood that is left to judge when calibration is taken out of it.

Dimensions in tensor names: E events, O outcomes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.metrics.classification import nll


def nll_at_optimal_temperature(log_probs_EO: Tensor, outcomes_E: Tensor, folds_E: Tensor) -> float:
    """Negative log-likelihood in nats at the temperature that is best for the other folds.

    `1 / E sum_e -log softmax(log p_e / T_e)_{y_e}`, where T_e minimises the loss over the events of all folds but the
    one of e. Members and methods that differ by their temperature alone are equal by this measure: what differs is how
    well they tell outcomes apart.

    Args:
        log_probs_EO: (E, O) log-probabilities.
        outcomes_E: (E,) int64 in [0, O): what came true.
        folds_E: (E,) int64 fold numbers; NaN is returned where all events are in one fold.

    Reference: Ashukha et al., 2020, arXiv:2002.06470, section 3 (test-time cross-validation, there over two halves).

    Example:
        >>> log_probs_EO = torch.tensor([[0.9, 0.1]] * 4).log()
        >>> round(nll_at_optimal_temperature(log_probs_EO, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])), 2)
        0.69
    """
    # it loads scipy, which those who only want scores do not need
    from transfuse.metrics.temperature import optimal_temperature

    scaled_EO = torch.empty_like(log_probs_EO, dtype=torch.float64)
    for fold in sorted(set(folds_E.tolist())):
        held_E = folds_E == fold
        if bool(held_E.all()):
            return torch.nan
        temperature = optimal_temperature(log_probs_EO[~held_E], outcomes_E[~held_E])
        scaled_EO[held_E] = (log_probs_EO[held_E].double() / temperature).log_softmax(1)
    return float(nll(scaled_EO, outcomes_E))
