"""`weight_fusion/della_linear`: task arithmetic of task vectors whose small elements are dropped more often."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot
from transfuse.strategy.weight_fusion.magnitude_sampling import MagnitudeSampling
from transfuse.strategy.weight_fusion.masked import Factors


@dataclass(frozen=True, kw_only=True)
class DellaLinear(MagnitudeSampling):
    """`x = b + scale * sum_i w_i d'_i`, `d'_i = m_i d_i / p_i`, `m_i ~ Bernoulli(p_i)`, `d_i = x_i - b`.

    `p = density - epsilon + 2 epsilon rank / (n - 1)` with the rank of |d| ascending among the n elements of its row.
    Masks depend on (seed, model index, tensor name, element index) and the ranks alone.

    Attributes:
        density: mean probability to be kept; see `Masked`.
        epsilon: see `MagnitudeSampling`; with 0 the masks are those of Bernoulli(density).
        rank_over: see `MagnitudeSampling`.
        rescale: see `Masked`; `inverse` is the paper's.
        scale: see `Scaled`.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> base, model = {"w": torch.zeros(3)}, {"w": torch.tensor([2.0, -1.0, 4.0])}
        >>> keep = {"w": torch.tensor([True, True, False])}
        >>> DellaLinear(density=0.5, epsilon=0.25).merged([model], base, masks=[keep])
        {'w': tensor([ 4., -4.,  0.])}

    Reference:
        Deep et al. 2024, "DELLA-Merging: reducing interference in model merging through magnitude-based sampling",
        2406.11617.
    """

    def fuse_block(self, block: Block, survey: Factors) -> Tensor:
        """Base plus the scaled weighted sum of what is kept, (B,)."""
        return torch.cat([self.merge_linear(piece, survey) for piece in self.pieces(block)])

    def ballot(self, block: Block, survey: Factors) -> Ballot:
        """The thinned task vectors; all are merged."""
        return Ballot(votes_KB=self.votes(block, survey), elect=None)
