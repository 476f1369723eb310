"""Elements that are dropped at random, all with one probability: what DARE does to task vectors.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion import chance
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.masked import Masked


@dataclass(frozen=True, kw_only=True)
class RandomDropping(Masked):
    """`d'_i = m_i d_i / density` with `m_i ~ Bernoulli(density)`, independent for each model and element."""

    def thinned(self, block: Block, model: int) -> Tensor:
        """The kept elements, (B,)."""
        assert block.base_B is not None, "the base is required"
        delta_B = torch.sub(block.rows_K[model], block.base_B)
        if block.masks_KB is not None:
            delta_B *= block.masks_KB[model]
        elif self.density < 1:
            words_B = chance.words(block, "dare", model)
            delta_B *= chance.kept(words_B, chance.limit(self.density), delta_B)
        # E[m d / density] = d
        return delta_B.mul_(1.0 / self.density) if self.rescale == "inverse" and self.density < 1 else delta_B
