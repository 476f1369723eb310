"""Weights that grow exponentially with a member's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.metrics import higher_is_better
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights, kinds_with, require_number
from transfuse.types import TaskKind


def softmax_score_weights(scores_M: Tensor, *, temperature: float = 0.05) -> Tensor:
    """`w_m = exp(s_m / T) / sum_k exp(s_k / T)`: T to 0 is the best member alone, T to infinity is uniform.

    Args:
        scores_M: (M,) scores, higher is better (a loss enters with a minus).
        temperature: T > 0, in the metric's unit.

    Returns:
        (M,) float64 weights.

    Example:
        >>> softmax_score_weights(torch.tensor([0.0, 0.0, -1.0]), temperature=0.5)
        tensor([0.4683, 0.4683, 0.0634], dtype=torch.float64)
    """
    scores_M = scores_M.double()
    # the best score first, so that it is 0 at every temperature
    return ((scores_M - scores_M.max()) / temperature).softmax(dim=0)


@dataclass(frozen=True, kw_only=True)
class SoftmaxScore(WeightRule):
    """`w_m` proportional to `exp(s_m / T)`; metrics where lower is better enter with a minus.

    Attributes:
        metric: of the validation data.
        temperature: T > 0, in the metric's unit.
    """

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "another strategy.weights.metric"

    metric: str = "nll"
    temperature: float = 0.05

    def __post_init__(self) -> None:
        higher_is_better(self.metric)  # a metric that does not exist is refused here
        require_number("temperature", self.temperature, "> 0", lambda value: value > 0)

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that have the metric."""
        return kinds_with(self.metric)

    def weights(self, predictions: Predictions) -> Weights:
        """See `softmax_score_weights`."""
        scores_M = predictions.scores(self.metric)
        signed_M = scores_M if higher_is_better(self.metric) else -scores_M
        return Weights(values_M=softmax_score_weights(signed_M, temperature=self.temperature))
