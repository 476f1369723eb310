"""How far the validation examples bear out fitted weights: a bootstrap interval.

Dimensions in tensor names: M members, B bootstrap samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule
from transfuse.types import HyperparameterError


def weights_interval(
    rule: WeightRule, predictions: Predictions, *, samples: int = 200, level: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Percentile interval of each weight over refits to validation examples drawn with replacement.

    Wide intervals mean that the weights could as well be others: members are alike, or examples are few. A refit costs
    what the rule costs, about a millisecond with 5 members and some hundred examples.

    Args:
        rule: the weight rule.
        predictions: of all members, with labels; `predictions.generator` draws the examples.
        samples: B, number of refits, >= 2.
        level: share of refits inside of the interval, in (0, 1).

    Returns:
        (M,) lower and (M,) upper ends, float64.

    Raises:
        HyperparameterError: a value out of range.
        EmptyTaskError: a draw has no labelled example.
    """
    if samples < 2:
        raise HyperparameterError(f"`samples` should be >= 2. Found `samples = {samples}`.")
    if not 0 < level < 1:
        raise HyperparameterError(f"`level` should be in (0, 1). Found `level = {level}`.")
    num_examples, generator = predictions.logits_MNC.shape[1], predictions.generator
    draws = [torch.randint(num_examples, (num_examples,), generator=generator) for _ in range(samples)]
    weights_BM = torch.stack([rule.weights(predictions.at(draw, generator)).values_M for draw in draws])
    ends_2M = weights_BM.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64), dim=0)
    return ends_2M[0], ends_2M[1]
