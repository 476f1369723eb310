"""`weight_fusion/breadcrumbs`: task arithmetic without each task vector's outliers and small changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.weight_fusion.band import Band, Banded
from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot, weighed
from transfuse.strategy.weight_fusion.merging import weighted_sum


@dataclass(frozen=True, kw_only=True)
class Breadcrumbs(Banded):
    """`x = b + scale * sum_i w_i d'_i`; d'_i drops the floor(gamma n) largest |d_i|, keeps the next floor(density n).

    Ranked in each tensor; of equal magnitudes the smaller flat index comes first. At least one element is kept.

    Attributes:
        density: see `Banded`.
        gamma: see `Banded`.
        scale: see `Scaled`; 0.3 in the paper.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> model, start = {"w": torch.tensor([9.0, -2.0, 1.0, 0.1])}, {"w": torch.zeros(4)}
        >>> Breadcrumbs(density=0.5, gamma=0.25, scale=1.0).merged([model], start)
        {'w': tensor([ 0., -2.,  1.,  0.])}

    Reference:
        Davari and Belilovsky 2024, "Model breadcrumbs: scaling multi-task model merging with sparse masks", 2312.06795.
    """

    def fuse_block(self, block: Block, survey: Band) -> Tensor:
        """The base plus the scaled sum of what is kept, (B,)."""
        assert block.base_B is not None and not isinstance(self.scale, str)
        scaled_K = [self.scale * weight for weight in self.model_weights(block.num_models)]
        return weighted_sum(self.kept(block, survey), scaled_K).add_(block.base_B)

    def ballot(self, block: Block, survey: Band) -> Ballot:
        """What lies inside the bands; all is merged."""
        weights_K = self.model_weights(block.num_models)
        return Ballot(votes_KB=weighed(self.kept(block, survey), weights_K), elect=None)
