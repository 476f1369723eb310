"""`weight_fusion/breadcrumbs_ties`: sign election among task vectors without outliers and small changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.weight_fusion.band import Band, Banded
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot, Merge, check_election, elect_and_merge, weighed


@dataclass(frozen=True, kw_only=True)
class BreadcrumbsTies(Banded):
    """`x = b + scale * elected(w_i d'_i)`; d'_i as in `Breadcrumbs`, the election as in `Ties`.

    Attributes:
        density: see `Banded`.
        gamma: see `Banded`.
        merge: how the agreeing values become one: `sum`, `mean` or `max`; see `elect_and_merge`.
        scale: see `Scaled`; 0.3 goes with the sum.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> models = [{"w": torch.tensor([9.0, -2.0, 1.0, 0.1])}, {"w": torch.tensor([0.1, -3.0, -4.0, 9.0])}]
        >>> BreadcrumbsTies(density=0.5, gamma=0.25, scale=1.0).merged(models, {"w": torch.zeros(4)})
        {'w': tensor([ 0., -5., -4.,  0.])}

    Reference:
        Davari and Belilovsky 2024 (2312.06795); Yadav et al. 2023 (2306.01708).
    """

    merge: Merge = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_election(self.merge)

    def fuse_block(self, block: Block, survey: Band) -> Tensor:
        """The base plus the scaled merge of what is kept and agrees, (B,)."""
        assert block.base_B is not None and not isinstance(self.scale, str)
        weights_K = self.model_weights(block.num_models)
        merged_B = elect_and_merge(self.kept(block, survey), weights_K, merge=self.merge)
        return merged_B.mul_(self.scale).add_(block.base_B)

    def ballot(self, block: Block, survey: Band) -> Ballot:
        """What lies inside the bands, and the election among it."""
        weights_K = self.model_weights(block.num_models)
        return Ballot(votes_KB=weighed(self.kept(block, survey), weights_K), elect="mass")
