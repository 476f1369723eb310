"""`weight_fusion/repair`: another weight fusion whose units then get back the members' means and deviations.

Dimensions in tensor names: K models, N examples, U units of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from transfuse.models.batch_norm import full_batches, reestimate
from transfuse.strategy.base import Context, FusedModel
from transfuse.strategy.weight_fusion.base import predictions
from transfuse.strategy.weight_fusion.diagnostics import verdict
from transfuse.strategy.weight_fusion.judging import validation_scores
from transfuse.strategy.weight_fusion.measuring import check_examples
from transfuse.strategy.weight_fusion.parts import take_apart
from transfuse.strategy.weight_fusion.renormalization import (
    Moments,
    Target,
    averages,
    hidden_layers,
    renormalized,
    unit_moments,
)
from transfuse.strategy.weight_fusion.tensor_fusion import TensorFusion
from transfuse.strategy.weight_fusion.wrapping import Wrapping
from transfuse.types import HyperparameterError

_TRACED = 4  # examples


@dataclass(frozen=True, kw_only=True)
class Repair(Wrapping):
    """`y' = (y - mean) deviation* / deviation + mean*` for each hidden unit y of what the inner method makes.

    `mean*` and `deviation*` are averages of the members' on the same training inputs: with the inner method's shares
    where it is a weighted mean, else 1/K each. Mixing networks shrinks the variance of their units, layer upon layer;
    this sets it right. It is folded into weights and biases: no parameter is added. For networks without BatchNorm, of
    members whose units correspond: fine-tuned ones, or `align=weight_matching`.

    Repaired are all linear layers and convolutions that are fused, but heads: what goes into an activation, queries,
    keys and values of attention, and what is added to a residual stream (these shrink as the others do, and a residual
    network with BatchNorm sets them right as well). Layers before a BatchNorm need its statistics measured anew and
    nothing else, which the inner method does; those of a BatchNorm behind a repaired layer are measured once more. A
    layer without a bias is rescaled only. A layer that runs several times, or shares its weight, stays as it is.

    What is fused is said by the inner method.

    Attributes:
        inner: a method that works tensor by tensor, and searches nothing.
        examples: training inputs that means and deviations are measured on, at least 1.

    Example:
        >>> Repair(inner=LinearMerge(weights=(0.3, 0.7)), examples=512).inner.name
        'weight_fusion/linear'

    Reference:
        Jordan et al. 2023, "REPAIR: REnormalizing Permuted Activations for Interpolation Repair", 2211.08403, sec. 4.
        Differs from the paper: layer by layer on all examples, not by running means over batches, so that means and
        deviations are met exactly.
    """

    needs: ClassVar[str] = "the networks and training inputs"

    examples: int = 1024

    def __post_init__(self) -> None:
        if not isinstance(self.inner, TensorFusion) or not self.inner.align_models:
            raise HyperparameterError(
                f"`inner` should be a weight fusion that works on base models as they are, tensor by tensor, such as "
                f"weight_fusion/linear. Found {self.inner.name}. Did you mean align=weight_matching beside it?"
            )
        self._refuse_searches("as what is repaired is not searched")
        if self.inner.batch_norm != "reestimate":
            raise HyperparameterError(
                f"`inner.batch_norm` should be reestimate: that is how BatchNorm is repaired. "
                f"Found `inner.batch_norm = {self.inner.batch_norm}`."
            )
        check_examples(self.examples)

    def apply(self, context: Context) -> FusedModel:
        """Fuses by the inner method, and repairs."""
        fused = self.inner.apply(context)
        assert fused.network is not None, "weight fusions make one"
        parts = take_apart(context, with_base=False, fuse=self.inner.fuse)
        train = context.development.train.inputs
        order_N = torch.randperm(len(train), generator=context.generator("weight_fusion/statistics"))
        inputs = train[order_N[: self.examples]]
        layers = hidden_layers(fused.network, inputs[:_TRACED], self.inner.selection.of(parts.states[0]))
        moments_K = [unit_moments(member.network(), layers.repaired, inputs) for member in parts.members]
        shares_K = _shares(fused, len(parts.members))
        targets = averages(moments_K, shares_K)

        def renew(network: nn.Module, layer: nn.Module) -> None:
            stream = context.generator("weight_fusion/batch_norm")
            reestimate(network, [layer], full_batches(train, context.training.batch_size, stream))

        network = renormalized(fused.network, layers.order, targets, inputs, renew)
        scores = validation_scores(context, predictions(context, network))
        before = unit_moments(fused.network, layers.repaired, inputs)
        return replace(
            fused,
            network=network,
            validation=scores,
            diagnostics={
                **fused.diagnostics,
                "repair": {
                    "examples": len(inputs),
                    "shares": list(shares_K),
                    "validation_before": fused.validation,
                    "layers": [_row(name, network, before[name], targets[name]) for name in layers.repaired],
                    "left": dict(layers.left),
                },
                "verdict": verdict(context, parts, scores, fused.diagnostics),
            },
        )


def _shares(fused: FusedModel, num_models: int) -> tuple[float, ...]:
    """Those of the weighted mean that was made, where it is one; else 1/K each."""
    found: Sequence[float] = next(iter(fused.weights.values())) if fused.weights else ()
    if found and min(found) >= 0 and math.isclose(math.fsum(found), 1.0):
        return tuple(found)
    return (1.0 / num_models,) * num_models


def _row(name: str, network: nn.Module, before: Moments, target: Target) -> dict[str, Any]:
    """Of a layer: how much of its units' deviation was left by the inner method (their median share)."""
    moving_U = target.deviation_U > 0
    shares_U = before.deviation_U[moving_U] / target.deviation_U[moving_U]
    return {
        "name": name,
        "units": len(moving_U),
        "deviation_before": float(shares_U.median()) if len(shares_U) else None,
        "shifted": network.get_submodule(name).bias is not None,
    }
