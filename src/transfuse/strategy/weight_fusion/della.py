"""`weight_fusion/della`: sign election among task vectors whose small elements are dropped more often."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot, Merge, check_election
from transfuse.strategy.weight_fusion.magnitude_sampling import MagnitudeSampling
from transfuse.strategy.weight_fusion.masked import Factors


@dataclass(frozen=True, kw_only=True)
class Della(MagnitudeSampling):
    """`x = b + scale * elected(w_i d'_i)`, `d'_i = m_i d_i / p_i`, `m_i ~ Bernoulli(p_i)`, `d_i = x_i - b`.

    `p = density - epsilon + 2 epsilon rank / (n - 1)` with the rank of |d| ascending among the n elements of its row;
    the election is that of TIES. Masks depend on (seed, model index, tensor name, element index) and the ranks alone.

    Attributes:
        density: mean probability to be kept; see `Masked`. With 1 (and epsilon 0) the election alone is left.
        epsilon: see `MagnitudeSampling`.
        rank_over: see `MagnitudeSampling`.
        rescale: see `Masked`.
        merge: how the agreeing values become one: `mean`, `sum` or `max`; see `elect_and_merge`.
        scale: see `Scaled`.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([-1.0, 3.0])}]
        >>> Della(density=1.0, epsilon=0.0).merged(models, base)
        {'w': tensor([3., 2.])}

    Reference:
        Deep et al. 2024 (2406.11617); the election: Yadav et al. 2023 (2306.01708).
    """

    merge: Merge = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_election(self.merge, "mass", "before_election")

    def fuse_block(self, block: Block, survey: Factors) -> Tensor:
        """Base plus the scaled elected task vector, (B,)."""
        return torch.cat([self.merge_elected(piece, survey, self.merge) for piece in self.pieces(block)])

    def ballot(self, block: Block, survey: Factors) -> Ballot:
        """The thinned task vectors, and the election among them."""
        return Ballot(votes_KB=self.votes(block, survey), elect="mass")
