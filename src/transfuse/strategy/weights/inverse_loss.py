"""Weights that shrink with a member's loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from transfuse.metrics import higher_is_better
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights, kinds_with, require_number
from transfuse.types import HyperparameterError, PredictionError, TaskKind


def inverse_loss_weights(losses_M: Tensor, *, power: float = 1.0) -> Tensor:
    """`w_m = loss_m^-power / sum_k loss_k^-power`; members without any loss share all the weight.

    Args:
        losses_M: (M,) losses >= 0.
        power: > 0; 0.5, 1 and 2 are the usual ones.

    Returns:
        (M,) float64 weights.

    Example:
        >>> inverse_loss_weights(torch.tensor([0.1, 0.2, 0.2]))
        tensor([0.5000, 0.2500, 0.2500], dtype=torch.float64)
    """
    losses_M = losses_M.double()
    smallest = losses_M.min()
    # in units of the smallest loss, so that no power overflows; 0/0 is a member without loss
    raised_M = (losses_M == 0).double() if smallest == 0 else (smallest / losses_M) ** power
    return raised_M / raised_M.sum()


@dataclass(frozen=True, kw_only=True)
class InverseLoss(WeightRule):
    """`w_m` proportional to `1 / loss_m^power`.

    Attributes:
        metric: of the validation data, one where lower is better.
        power: > 0.
    """

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "another strategy.weights.metric"

    metric: str = "nll"
    power: float = 1.0

    def __post_init__(self) -> None:
        if higher_is_better(self.metric):
            raise HyperparameterError(
                f"`weights.metric` should be one where lower is better. Found `weights.metric = {self.metric}`. "
                f"Did you mean the rule score?"
            )
        require_number("power", self.power, "> 0", lambda value: value > 0)

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that have the metric."""
        return kinds_with(self.metric)

    def weights(self, predictions: Predictions) -> Weights:
        """See `inverse_loss_weights`."""
        losses_M = predictions.scores(self.metric)
        if bool((losses_M < 0).any()):
            raise PredictionError(f"Losses should be >= 0. Found `scores_M = {losses_M.tolist()}`.")
        return Weights(values_M=inverse_loss_weights(losses_M, power=self.power))
