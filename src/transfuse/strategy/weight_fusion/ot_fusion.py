"""`weight_fusion/ot_fusion`: units are moved onto those of the best model by optimal transport, then averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from transfuse.alignment import Specification, check_soft, incoming, specify, squared_distance, transport_units
from transfuse.base_models.model import BaseModel, Description
from transfuse.randomness import make_generator
from transfuse.state_dict import check_finite
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.aligned import best_index, described
from transfuse.strategy.weight_fusion.barrier import paths
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.linear import LinearMerge
from transfuse.strategy.weight_fusion.measuring import check_examples
from transfuse.strategy.weight_fusion.parts import take_apart
from transfuse.strategy.weight_fusion.permuted import PermutedModels, specifications
from transfuse.strategy.weight_fusion.weighted import WeightSource
from transfuse.types import Development, HyperparameterError

Cost = Literal["weights", "activations"]
_TRACED = 4  # examples


@dataclass(frozen=True, kw_only=True)
class OTFusion(WeightFusion):
    """`x = sum_i w_i T_i(x_i) / sum_i w_i`, T_i moves the units of model i onto those of the best model.

    Layer by layer: `W = T_l W T_(l-1)^T` with T = n times the transport plan of least cost between n units on either
    side, each of mass 1/n. Rows and columns of T sum to 1. The best model by validation stays as it is, and so do
    classes and inputs.

    Without regularization T is a permutation and model i computes what it did. With it, each unit becomes a mean of
    the units that are near it, and model i computes something else: as regularization grows all units of a layer
    become their mean. On a residual stream one T acts at all places, `T (h + f(h)) = T h + T f(h)`; a normalization
    over the stream sees the same mean and a smaller variance. Attention heads and groups are moved as wholes with the
    units within them, without regularization alone.

    Attributes:
        cost: `weights`: the Euclidean distance of incoming weights, bias included, whose inputs have been moved before;
            `activations`: the root mean square difference of activations on training inputs.
        regularization: 0 for exact transport; > 0 for entropic transport, in mean costs of the layer: 0.01 to 1 is
            from nearly exact to nearly uniform.
        examples: training inputs for `cost=activations`, at least 2; all, where there are fewer.
        weights: as those of `LinearMerge`.

    Example:
        >>> OTFusion(cost="activations", regularization=0.05).name
        'weight_fusion/ot_fusion'

    Reference:
        Singh & Jaggi 2020, "Model Fusion via Optimal Transport", 1910.05653, algorithm 1. Differs from the paper:
        regularization is relative to the mean cost, and a residual stream has one T, of all layers that write to it.
    """

    needs: ClassVar[str] = "the networks, which tell what units may be moved"
    align_models: ClassVar[bool] = False

    cost: Cost = "weights"
    regularization: float = 0.0
    examples: int = 1024
    weights: WeightSource = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cost not in ("weights", "activations"):
            raise HyperparameterError(f"`cost` should be weights or activations. Found `cost = {self.cost}`.")
        if not (math.isfinite(self.regularization) and self.regularization >= 0):
            raise HyperparameterError(
                f"`regularization` should be >= 0 and finite. Found `regularization = {self.regularization}`."
            )
        check_examples(self.examples)
        if self.examples < 2:
            raise HyperparameterError(f"`examples` should be >= 2. Found `examples = {self.examples}`.")
        if self.batch_norm != "reestimate":
            raise HyperparameterError(
                f"`batch_norm` should be reestimate where units are moved: the statistics of a mixture are none of "
                f"theirs. Found `batch_norm = {self.batch_norm}`."
            )
        self._average()  # checks the weights

    def check(self, development: Development, base_models: Description) -> None:
        """What averaging asks, and units that means can stand for where there is a regularization."""
        super().check(development, base_models)
        self._average().check(development, base_models)
        if self.regularization > 0 and base_models.build is not None:
            network, inputs = base_models.build().eval(), development.train.inputs[:_TRACED]
            specification = specify(network, inputs, make_generator(0, "align/trial"))
            check_soft(specification, incoming(network, specification, inputs))

    def apply(self, context: Context) -> FusedModel:
        """Moves the units of all members but the best, and averages."""
        members = tuple(context.base_models)
        _check_finite(members)
        best = best_index(context, members)
        before = paths(context, take_apart(context, with_base=False, fuse=self.fuse))
        specs = specifications(context, None)
        states = self._moved(context, members, best, specs)
        # the members' own predictions stay those that weigh and describe them
        fused = self._average().apply(replace(context, base_models=PermutedModels(context.base_models, states)))
        reference = members[best].state
        found = {
            "matcher": "ot_fusion",
            "reference": members[best].description.name,
            "members": [
                {
                    "name": member.description.name,
                    "squared_distance_before": squared_distance(reference, member.state),
                    "squared_distance": squared_distance(reference, state),
                }
                for index, (member, state) in enumerate(zip(members, states, strict=True))
                if index != best
            ],
            **described(specs),
            "barrier_before": [
                {key: row[key] for key in ("models", "barrier")} for row in (path.row() for path in before)
            ],
        }
        looks = len(members) if len(members) > 1 else 0
        return replace(fused, diagnostics={**fused.diagnostics, "align": found}, looks=fused.looks + looks)

    def _moved(
        self, context: Context, members: Sequence[BaseModel], best: int, specs: Sequence[Specification]
    ) -> list[Mapping[str, Tensor]]:
        """The members' weights with their units where those of the best member are."""
        train = context.development.train.inputs
        order_N = torch.randperm(len(train), generator=context.generator("weight_fusion/statistics"))
        return [
            member.state
            if index == best
            else transport_units(
                specification,
                members[best].network(),
                member.network(),
                train[order_N[: self.examples]],
                by_activations=self.cost == "activations",
                regularization=self.regularization,
            )
            for index, (member, specification) in enumerate(zip(members, specs, strict=True))
        ]

    def _average(self) -> LinearMerge:
        return LinearMerge(
            batch_norm=self.batch_norm, fuse=self.fuse, only=self.only, skip=self.skip, weights=self.weights
        )


def _check_finite(members: Sequence[BaseModel]) -> None:
    """Raises `NonFiniteError` before distances to such weights are taken."""
    for member in members:
        for key, value in member.state.items():
            if value.is_floating_point():
                check_finite([value], key, [member.description.name])
