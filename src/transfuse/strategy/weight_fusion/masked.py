"""Task vectors that are thinned out before they are merged: the common part of DARE and DELLA.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from transfuse.leaves import leaves, pairwise_sum
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.base import Need
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot, Merge, elect_and_merge, weighed
from transfuse.strategy.weight_fusion.interference import interference_of
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import HyperparameterError

Rescale = Literal["inverse", "l1", "none"]
Factors = tuple[float, ...] | None
_RESCALES = ("inverse", "l1", "none")


@dataclass(frozen=True, kw_only=True)
class Masked(Weighted, Scaled):
    """A method that keeps each element of each task vector with some probability.

    Masks may be handed in (`masks`): booleans by key, one mapping a model. Keys without one are drawn.

    Attributes:
        density: probability to be kept, in (0, 1].
        rescale: what makes up for the dropped elements. `inverse`: 1 / probability, so that the expectation is the
            task vector; `l1`: one factor a tensor and model that restores the sum of magnitudes; `none`: nothing.
    """

    masks: ClassVar[Need] = "optional"

    density: float = 0.5
    rescale: Rescale = "inverse"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise HyperparameterError(f"`density` should be in (0, 1]. Found `density = {self.density}`.")
        if self.rescale not in _RESCALES:
            raise HyperparameterError(f"`rescale` should be inverse, l1 or none. Found `rescale = {self.rescale}`.")

    @abstractmethod
    def thinned(self, block: Block, model: int) -> Tensor:
        """m_i d_i, divided by the probability to be kept with `rescale=inverse`: (B,), a new tensor."""

    def survey(self, blocks: Iterable[Block]) -> Factors:
        """With `rescale=l1`: sum |d_i| / sum |m_i d_i| of each model; 1 where nothing is kept."""
        if self.rescale != "l1":
            return None
        sums_K2 = pairwise_sum([self._magnitudes(block) for block in blocks])
        return tuple(before / after if after > 0 else 1.0 for before, after in sums_K2.tolist())

    def merge_linear(self, block: Block, factors: Factors) -> Tensor:
        """`b + scale * sum_i w_i d'_i`, (B,)."""
        total_B = torch.zeros_like(block.rows_K[0])
        for model, weight in enumerate(self.model_weights(block.num_models)):
            thinned_B = self.thinned(block, model)
            total_B += thinned_B.mul_(weight if factors is None else weight * factors[model])
        return self._added(block, total_B)

    def merge_elected(self, block: Block, factors: Factors, merge: Merge) -> Tensor:
        """`b + scale * elected(w_i d'_i)`, (B,)."""
        num_models = block.num_models
        deltas_KB = torch.stack([self.thinned(block, model) for model in range(num_models)])
        if factors is not None:
            deltas_KB *= torch.tensor(factors, dtype=deltas_KB.dtype, device=deltas_KB.device)[:, None]
        return self._added(block, elect_and_merge(deltas_KB, self.model_weights(num_models), merge=merge))

    def interference(self, context: Context, parts: Parts, measured: Measured) -> dict[str, Any]:
        """Sign conflicts before and after thinning, and the mass that the election loses, where there is one."""
        return interference_of(self, context, parts, measured)

    @abstractmethod
    def ballot(self, block: Block, survey: Factors) -> Ballot:
        """The thinned task vectors, and how they are merged."""

    def votes(self, block: Block, factors: Factors) -> Tensor:
        """w_i d'_i, (K, B), new."""
        num_models = block.num_models
        thinned_KB = torch.stack([self.thinned(block, model) for model in range(num_models)])
        shares = factors or (1.0,) * num_models
        weights_K = self.model_weights(num_models)
        return weighed(thinned_KB, [weight * share for weight, share in zip(weights_K, shares, strict=True)])

    def _added(self, block: Block, merged_B: Tensor) -> Tensor:
        assert not isinstance(self.scale, str), "a search replaces it by numbers"
        assert block.base_B is not None, "the base is required"
        return merged_B.mul_(self.scale).add_(block.base_B)

    def _magnitudes(self, block: Block) -> Tensor:
        """(K, 2) float64: sums of |d_i| and |m_i d_i|."""
        assert block.base_B is not None, "the base is required"
        pairs = []
        for model, values_B in enumerate(block.rows_K):
            pairs += [_l1(values_B - block.base_B), _l1(self.thinned(block, model))]
        return torch.stack(pairs).reshape(-1, 2)


def _l1(values_B: Tensor) -> Tensor:
    return pairwise_sum([values_B[leaf].abs().sum(dtype=torch.float64) for leaf in leaves(len(values_B))])
