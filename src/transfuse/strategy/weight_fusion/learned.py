"""What weight fusions share that learn coefficients by gradients, through the run's trainer.

Dimensions in tensor names: K models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from transfuse.models.batch_norm import has_batch_norm
from transfuse.state_dict import compute_dtype
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import WeightFusion
from transfuse.strategy.weight_fusion.layerwise import LayerwiseSum
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.mixture import WeightMixture

Coefficients = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class LearnedFusion(WeightFusion):
    """A method that learns one coefficient a model, or one a model and tensor, and ends in the weighted sum of them."""

    needs: ClassVar[str] = "the networks, data and a trainer"

    def summed(
        self, context: Context, parts: Parts, coefficients: Coefficients, start_K: tuple[float, ...]
    ) -> tuple[nn.Module, str]:
        """The network of the weighted sum, and how its running statistics were made."""
        fused = self._fused(parts, coefficients, start_K)
        return self.settle(context, parts, fused, len(parts.members) + (parts.base is not None))

    def mixture(
        self,
        parts: Parts,
        start_K: tuple[float, ...],
        *,
        per_tensor: bool,
        simplex: bool = False,
        temperatures: tuple[str, ...] = (),
    ) -> WeightMixture:
        """The network as a function of its coefficients, at their start.

        While they are learned, BatchNorm takes the statistics of each batch where those of the fused network are
        measured anew, and the running ones otherwise.
        """
        from transfuse.training.mixture import WeightMixture

        network = parts.network(self._fused(parts, {}, start_K))
        chosen = self.selection.of(parts.states[0])
        names = [name for name, _ in network.named_parameters() if name in chosen]
        if not names:
            raise HyperparameterError(
                f"{self.name} needs a parameter to fuse. Found none. Are `only` and `skip` right?"
            )
        base = {} if parts.base is None else {name: _wide(parts.base[name]) for name in names}
        values = {name: torch.stack([_wide(state[name]) for state in parts.states]) for name in names}
        return WeightMixture(
            network,
            {name: values[name] - base[name] if base else values[name] for name in names},
            base,
            start=start_K[0],
            per_tensor=per_tensor,
            simplex=simplex,
            temperatures=temperatures,
            batch_statistics=self.batch_norm == "reestimate" and has_batch_norm(network),
        )

    def _fused(self, parts: Parts, coefficients: Coefficients, start_K: tuple[float, ...]) -> dict[str, Tensor]:
        return merge_state_dicts(
            LayerwiseSum(coefficients=coefficients, start_K=start_K),
            parts.states,
            names=parts.names,
            base=parts.base,
            batch_norm="keep" if self.batch_norm == "keep" else "average",
            selection=self.selection,
        )


def mean_over_tensors(coefficients: Coefficients) -> list[float]:
    """(K,) the models' coefficients, averaged over tensors.

    Example:
        >>> mean_over_tensors({"a": (1.0, 0.0), "b": (0.0, 1.0)})
        [0.5, 0.5]
    """
    rows_K = zip(*coefficients.values(), strict=True)
    return [sum(row) / len(coefficients) for row in rows_K]


def _wide(value: Tensor) -> Tensor:
    return value.to(compute_dtype([value]))
