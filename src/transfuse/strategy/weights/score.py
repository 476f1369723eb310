"""Weights that grow with how much better than chance a member is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from transfuse.metrics import higher_is_better
from transfuse.strategy.predictions import Predictions
from transfuse.strategy.weights.base import WeightRule, Weights, kinds_with, require_number
from transfuse.strategy.weights.uniform import uniform_weights
from transfuse.types import HyperparameterError, TaskKind


def score_weights(scores_M: Tensor, *, chance: float = 0.0, power: float = 1.0) -> Tensor:
    """`w_m = max(s_m - chance, 0)^power / sum_k max(s_k - chance, 0)^power`; uniform where nobody beats chance.

    Args:
        scores_M: (M,) scores, higher is better.
        chance: the score of a guess.
        power: > 0; larger powers favour the best member.

    Returns:
        (M,) float64 weights.

    Example:
        >>> score_weights(torch.tensor([0.7, 0.6, 0.4]), chance=0.5)
        tensor([0.6667, 0.3333, 0.0000], dtype=torch.float64)
    """
    above_M = (scores_M.double() - chance).clamp(min=0)
    if not above_M.any():
        return uniform_weights(len(scores_M))
    # dividing by the largest first: powers of tiny values do not underflow
    raised_M = (above_M / above_M.max()) ** power
    return raised_M / raised_M.sum()


@dataclass(frozen=True, kw_only=True)
class Score(WeightRule):
    """`w_m` proportional to `max(s_m - chance, 0)^power`.

    Raw accuracies make weights that are uniform in all but name (0.198 to 0.202 for five similar members): that is why
    chance is subtracted.

    Attributes:
        metric: of the validation data, one where higher is better.
        power: > 0.
        chance: what a guess scores; `auto`: 1/C for accuracy (multi-label, where all labels must be right: 2^-C), 0.5
            for auroc, 0 for others.
    """

    fitted: ClassVar[bool] = True
    instead: ClassVar[str] = "another strategy.weights.metric"

    metric: str = "accuracy"
    power: float = 1.0
    chance: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if not higher_is_better(self.metric):
            raise HyperparameterError(
                f"`weights.metric` should be one where higher is better. Found `weights.metric = {self.metric}`. "
                f"Did you mean the rule inverse_loss?"
            )
        require_number("power", self.power, "> 0", lambda value: value > 0)
        if self.chance != "auto":
            require_number("chance", self.chance, "or auto", lambda value: True)

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """The kinds of task that have the metric."""
        return kinds_with(self.metric)

    def weights(self, predictions: Predictions) -> Weights:
        """See `score_weights`; `fusion/at_chance` is 1 where no member beats chance and weights are uniform."""
        chance = self._chance(predictions) if isinstance(self.chance, str) else self.chance
        scores_M = predictions.scores(self.metric)
        return Weights(
            values_M=score_weights(scores_M, chance=chance, power=self.power),
            diagnostics={"fusion/at_chance": float((scores_M <= chance).all())},
        )

    def _chance(self, predictions: Predictions) -> float:
        num_outputs = predictions.logits_MNC.shape[2]
        if self.metric == "accuracy":
            return 1 / num_outputs if predictions.kind == "classification" else 0.5**num_outputs
        return 0.5 if self.metric == "auroc" else 0.0
