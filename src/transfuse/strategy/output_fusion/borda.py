"""`output_fusion/borda`: each member ranks the classes, and the points are averaged.

Dimensions in tensor names: M members, N examples, C classes, E events, O outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from transfuse.metrics.temperature import optimal_temperature
from transfuse.strategy.output_fusion.base import OutputFusion
from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.ranks import counts
from transfuse.strategy.predictions import Predictions, log_outcomes, logits_of
from transfuse.types import EmptyTaskError, HyperparameterError, TaskKind


def borda_points(log_probs_MEO: Tensor) -> Tensor:
    """Mean over members of each outcome's points: 0 for the least likely to O - 1 for the most likely, ties averaged.

    Example:
        >>> import torch
        >>> borda_points(torch.tensor([[[0.5, 0.3, 0.2]], [[0.2, 0.4, 0.4]]]).log())
        tensor([[1.0000, 1.2500, 0.7500]])

    Reference:
        Borda 1781; Ho, Hull & Srihari 1994.
    """
    less_MEO, equal_MEO = counts(log_probs_MEO, log_probs_MEO.sort(dim=-1).values)
    points_MEO = less_MEO + (equal_MEO.to(log_probs_MEO.dtype) - 1) / 2
    return points_MEO.mean(dim=0)


class BordaPool(Combiner):
    """`p = softmax(points / temperature)`."""

    def __init__(self, kind: TaskKind, *, temperature: float) -> None:
        super().__init__(kind, diagnostics={"fusion/temperature": temperature})
        self.temperature = temperature

    def forward(self, logits_MNC: Tensor) -> Tensor:
        """The pool's logits (N, C)."""
        points_EO = borda_points(log_outcomes(logits_MNC, self.kind))
        return logits_of(points_EO / self.temperature, self.kind, logits_MNC.shape[2])


@dataclass(frozen=True, kw_only=True)
class Borda(OutputFusion):
    """`p = softmax(points / temperature)` of the mean points; multi-label: each label is an event with two outcomes.

    Only the order of the classes counts, so the scale must come from somewhere.

    Attributes:
        temperature: > 0, or `fit`: the one with the lowest validation NLL.
    """

    temperature: float | Literal["fit"] = "fit"

    def __post_init__(self) -> None:
        value = self.temperature
        if value != "fit" and (isinstance(value, str) or not 0 < value < float("inf")):
            raise HyperparameterError(f"`temperature` should be > 0 or fit. Found `temperature = {value}`.")

    @property
    def fitted(self) -> bool:
        """Whether the temperature is."""
        return self.temperature == "fit"

    @property
    def kinds(self) -> frozenset[TaskKind]:
        """Tasks with classes or labels."""
        return frozenset({"classification", "multilabel"})

    def combine(self, predictions: Predictions) -> BordaPool:
        """The pool with the given or the fitted temperature; it has no weights."""
        if self.temperature != "fit":
            return BordaPool(predictions.kind, temperature=float(self.temperature))
        outcomes_E = predictions.outcomes_E
        known_E = outcomes_E >= 0
        if not known_E.any():
            raise EmptyTaskError("borda needs at least one labelled example for its temperature. Found none.")
        points_EO = borda_points(predictions.log_outcomes_MEO)
        return BordaPool(predictions.kind, temperature=optimal_temperature(points_EO[known_E], outcomes_E[known_E]))
