"""Weight fusions that judge whole networks on validation data and end in a weighted sum of the models.

Dimensions in tensor names: K models, N examples, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.diagnostics import describe
from transfuse.strategy.weight_fusion.judging import Outputs, honest_scores, validation_scores
from transfuse.strategy.weight_fusion.merging import WeightedSum, merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts, take_apart


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a method chose, and all that it looked at.

    Attributes:
        weights_K: of the weighted sum; models with the weight 0 take no part.
        divisor: of the weighted sum.
        candidates: the networks that were judged: task -> (N, C) outputs on the validation split.
        index: the chosen one among them.
        metric: what decided.
        looks: how many times validation scores were read.
        diagnostics: for the record.
    """

    weights_K: tuple[float, ...]
    divisor: float
    candidates: tuple[Outputs, ...]
    index: int
    metric: str
    looks: int
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def coefficients_K(self) -> tuple[float, ...]:
        """The models' shares."""
        return tuple(weight / self.divisor for weight in self.weights_K)


@dataclass(frozen=True, kw_only=True)
class NetworkFusion(WeightFusion):
    """A method that chooses the coefficients of a weighted sum by judging networks."""

    @abstractmethod
    def select(self, context: Context, parts: Parts) -> Choice:
        """Chooses coefficients; `mixture` makes the network of any."""

    def mixture(
        self, context: Context, parts: Parts, weights_K: Sequence[float], divisor: float = 1.0
    ) -> tuple[nn.Module, str]:
        """The network of sum_i w_i x_i / divisor, and how its running statistics were made.

        Models with the weight 0 do not take part; a single model keeps its statistics.
        """
        chosen = [index for index, weight in enumerate(weights_K) if weight != 0.0]
        fused = merge_state_dicts(
            WeightedSum(weights_K=tuple(weights_K[index] for index in chosen), divisor=divisor),
            [parts.states[index] for index in chosen],
            names=[parts.names[index] for index in chosen],
            batch_norm="keep" if self.batch_norm == "keep" else "average",
            selection=self.selection,
        )
        return self.settle(context, parts, fused, len(chosen))

    def apply(self, context: Context) -> FusedModel:
        """Chooses, fuses, and scores the choice: in sample as `fit`, cross-fitted as `validation`."""
        parts = take_apart(context, with_base=self.base != "unused", fuse=self.fuse)
        choice = self.select(context, parts)
        network, batch_norm = self.mixture(context, parts, choice.weights_K, choice.divisor)
        state = network.state_dict()
        return FusedModel(
            network=network,
            validation=honest_scores(context, choice.candidates, choice.metric),
            fit=validation_scores(context, choice.candidates[choice.index]),
            members=tuple(index for index, weight in enumerate(choice.weights_K) if weight != 0.0),
            weights={task.name: list(choice.coefficients_K) for task in context.development.tasks},
            diagnostics={
                **describe(context, parts, {key: state[key] for key in parts.states[0]}, batch_norm),
                **choice.diagnostics,
            },
            looks=choice.looks,
        )
