"""`weight_fusion/ties`: task vectors trimmed to their largest changes, then merged where they agree on a sign.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from transfuse.base_models.model import Description
from transfuse.leaves import LEAF, pairwise_sum
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.cut import Cut
from transfuse.strategy.weight_fusion.election import (
    Ballot,
    Elect,
    Merge,
    Weigh,
    check_election,
    elect_and_merge,
    weighed,
)
from transfuse.strategy.weight_fusion.interference import interference_of
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import TensorMethod
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.scaled import Scaled
from transfuse.strategy.weight_fusion.trimming import kept_count, largest, task_vectors
from transfuse.strategy.weight_fusion.weighted import Weighted
from transfuse.types import Development, HyperparameterError


@dataclass(frozen=True, kw_only=True)
class Trimming:
    """What is kept of one tensor.

    Attributes:
        cuts_K: one cut a model.
        factors_K: what makes up for the dropped part, one number a model; None: nothing does.
    """

    cuts_K: tuple[Cut, ...]
    factors_K: tuple[float, ...] | None = None

    def trimmed(self, block: Block) -> Tensor:
        """(K, B) the kept task vectors of a block, zeros for others, in new memory."""
        deltas_KB = task_vectors(block)
        for model, (delta_B, cut) in enumerate(zip(deltas_KB, self.cuts_K, strict=True)):
            delta_B.copy_(cut.trim(delta_B, block.offset))
            if self.factors_K is not None:
                delta_B.mul_(self.factors_K[model])
        return deltas_KB

    def rescaled(self, blocks: Blocks) -> Trimming:
        """The same with factors `sum |d_i| / sum |kept d_i|`; 1 where nothing but zeros is kept."""
        parts = []
        for block in blocks:
            pair_2KB = torch.stack([task_vectors(block), self.trimmed(block)])
            parts.append(pair_2KB.double().abs_().sum(-1))
        before_K, after_K = pairwise_sum(parts).tolist()
        factors_K = tuple(before / after if after > 0 else 1.0 for before, after in zip(before_K, after_K, strict=True))
        return Trimming(cuts_K=self.cuts_K, factors_K=factors_K)


@dataclass(frozen=True, kw_only=True)
class Ties(Weighted, Scaled):
    """Trim, elect, merge: `x = b + scale * sum_{sign t_i = s} t_i / sum_{sign t_i = s} w_i`.

    t_i = w_i * (the k = max(1, floor(density n)) largest |d_i|, zeros for others); s = sign(sum_i t_i), plus in a tie.
    Exactly k are kept: of equal magnitudes those of smaller flat index.

    Attributes:
        density: in (0, 1], share of elements that are kept; one for all models or one each. 0.2 in the paper.
        weights: see `Weighted`; None: 1 each, as in the paper.
        scale: see `Scaled`.
        scope: rank the elements of each `tensor`, or of the whole `model` (the paper).
        merge: `mean` over the agreeing weights, their `sum`, or the `max`; see `elect_and_merge`.
        elect: the sign of the larger `mass`, or that of more models (`count`).
        weigh: weights count in the election (`before_election`), or only `after` it.
        rescale: `l1`: kept values are scaled so that each model's tensor has the L1 norm it had before; `none`.

    Example:
        >>> models = [{"w": torch.tensor([4.0, 1.0, 0.1, 0.2])}, {"w": torch.tensor([2.0, -3.0, 0.1, 0.2])}]
        >>> Ties(density=0.5).merged(models, {"w": torch.zeros(4)})
        {'w': tensor([ 3., -3.,  0.,  0.])}

    Reference:
        Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", 2306.01708, algorithm 1. Differs
        from the paper: each tensor is trimmed on its own, unless `scope=model`; weights.
    """

    density: float | tuple[float, ...] = 0.2
    scope: Literal["tensor", "model"] = "tensor"
    merge: Merge = "mean"
    elect: Elect = "mass"
    weigh: Weigh = "before_election"
    rescale: Literal["none", "l1"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.density, (int, float)):
            object.__setattr__(self, "density", tuple(float(density) for density in self.density))
        for density in self.density if isinstance(self.density, tuple) else (self.density,):
            if not 0 < density <= 1:
                raise HyperparameterError(f"`density` should be in (0, 1]. Found `density = {density}`.")
        if self.scope not in ("tensor", "model"):
            raise HyperparameterError(f"`scope` should be tensor or model. Found `scope = {self.scope}`.")
        if self.rescale not in ("none", "l1"):
            raise HyperparameterError(f"`rescale` should be none or l1. Found `rescale = {self.rescale}`.")
        check_election(self.merge, self.elect, self.weigh)

    def check(self, development: Development, base_models: Description) -> None:
        """One density a model, where they differ."""
        super().check(development, base_models)
        self.densities(len(base_models))

    def densities(self, num_models: int) -> tuple[float, ...]:
        """K densities.

        Raises:
            HyperparameterError: not one a model.
        """
        if not isinstance(self.density, tuple):
            return (self.density,) * num_models
        if len(self.density) != num_models:
            raise HyperparameterError(
                f"`density` should be one number or have {num_models} entries (one a model). Found {len(self.density)}."
            )
        return self.density

    def bind(self, tensors: Sequence[Blocks]) -> TensorMethod:
        """With `scope=model` all tensors are ranked together before the first is fused."""
        if self.scope == "tensor" or not tensors:
            return self
        sizes = [blocks.values_K[0].numel() for blocks in tensors]
        starts = {blocks.key: start for blocks, start in zip(tensors, accumulate(sizes, initial=0), strict=False)}
        return _ModelTies(method=self, cuts_K=self._cuts(tensors), starts=starts)

    def survey(self, blocks: Blocks) -> Trimming:
        """Where each model's task vector of this tensor is trimmed."""
        return self.settled(blocks, self._cuts([blocks]))

    def settled(self, blocks: Blocks, cuts_K: tuple[Cut, ...]) -> Trimming:
        """The trimming of one tensor at given cuts."""
        trimming = Trimming(cuts_K=cuts_K)
        return trimming.rescaled(blocks) if self.rescale == "l1" else trimming

    def fuse_block(self, block: Block, survey: Trimming) -> Tensor:
        """The base plus the scaled merge of what is kept and agrees, (B,)."""
        assert block.base_B is not None and not isinstance(self.scale, str)
        weights_K = self.model_weights(block.num_models)
        merged_B = elect_and_merge(
            survey.trimmed(block), weights_K, merge=self.merge, elect=self.elect, weigh=self.weigh
        )
        return merged_B.mul_(self.scale).add_(block.base_B)

    def interference(self, context: Context, parts: Parts, measured: Measured) -> dict[str, Any]:
        """Sign conflicts before and after trimming, and the mass that the election loses."""
        return interference_of(self, context, parts, measured)

    def ballot(self, block: Block, survey: Trimming) -> Ballot:
        """The trimmed task vectors, weighted where weights count in the election."""
        votes_KB = survey.trimmed(block)
        if self.weigh == "before_election":
            votes_KB = weighed(votes_KB, self.model_weights(len(votes_KB)))
        return Ballot(votes_KB=votes_KB, elect=self.elect)

    def _cuts(self, tensors: Sequence[Blocks]) -> tuple[Cut, ...]:
        num_elements = sum(blocks.values_K[0].numel() for blocks in tensors)
        densities_K = self.densities(len(tensors[0].values_K))
        return tuple(cut for (cut,) in largest(tensors, [[kept_count(part, num_elements)] for part in densities_K]))


@dataclass(frozen=True, kw_only=True)
class _ModelTies:
    """TIES whose cuts are those of the whole model.

    Attributes:
        method: its settings.
        cuts_K: one cut a model, over all tensors.
        starts: key -> index of the tensor's first element among all.
    """

    method: Ties
    cuts_K: tuple[Cut, ...]
    starts: Mapping[str, int]
    whole: ClassVar[bool] = False
    size: ClassVar[int] = LEAF

    def bind(self, tensors: Sequence[Blocks]) -> _ModelTies:
        """Knows all tensors already."""
        return self

    def survey(self, blocks: Blocks) -> Trimming:
        """The model's cuts as the tensor counts."""
        return self.method.settled(blocks, tuple(cut.shifted(self.starts[blocks.key]) for cut in self.cuts_K))

    def fuse_block(self, block: Block, survey: Trimming) -> Tensor:
        """As in one tensor."""
        return self.method.fuse_block(block, survey)
