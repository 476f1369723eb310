"""`weight_fusion/dare_ties`: sign election among task vectors with elements dropped at random."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot, Merge, check_election
from transfuse.strategy.weight_fusion.masked import Factors
from transfuse.strategy.weight_fusion.random_dropping import RandomDropping


@dataclass(frozen=True, kw_only=True)
class DareTies(RandomDropping):
    """`x = b + scale * elected(w_i d'_i)`, `d'_i = m_i d_i / density`, `m_i ~ Bernoulli(density)`, `d_i = x_i - b`.

    The election is that of TIES; nothing is trimmed by magnitude. Masks depend on (seed, model index, tensor name,
    element index) alone.

    Attributes:
        density: see `Masked`; with 1 the election alone is left.
        rescale: see `Masked`.
        merge: how the agreeing values become one: `mean`, `sum` or `max`; see `elect_and_merge`.
        scale: see `Scaled`.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([-1.0, 3.0])}]
        >>> keep = [{"w": torch.tensor([True, True])}, {"w": torch.tensor([True, False])}]
        >>> DareTies(density=0.5).merged(models, base, masks=keep)
        {'w': tensor([6., 2.])}

    Reference:
        Yu et al. 2024 (2311.03099); Yadav et al. 2023 (2306.01708).
    """

    merge: Merge = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_election(self.merge, "mass", "before_election")

    def fuse_block(self, block: Block, survey: Factors) -> Tensor:
        """Base plus the scaled elected task vector, (B,)."""
        return self.merge_elected(block, survey, self.merge)

    def ballot(self, block: Block, survey: Factors) -> Ballot:
        """The thinned task vectors, and the election among them."""
        return Ballot(votes_KB=self.votes(block, survey), elect="mass")
