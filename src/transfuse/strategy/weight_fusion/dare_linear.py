"""`weight_fusion/dare_linear`: task arithmetic of task vectors with elements dropped at random."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from transfuse.strategy.weight_fusion.block import Block
from transfuse.strategy.weight_fusion.election import Ballot
from transfuse.strategy.weight_fusion.masked import Factors
from transfuse.strategy.weight_fusion.random_dropping import RandomDropping


@dataclass(frozen=True, kw_only=True)
class DareLinear(RandomDropping):
    """`x = b + scale * sum_i w_i d'_i`, `d'_i = m_i d_i / density`, `m_i ~ Bernoulli(density)`, `d_i = x_i - b`.

    The paper drops 0.9 of the elements (`density=0.1`) of language models without loss; small networks stand less.
    Masks depend on (seed, model index, tensor name, element index) alone.

    Attributes:
        density: see `Masked`; with 1 the result is task arithmetic.
        rescale: see `Masked`; `inverse` is the paper's.
        scale: see `Scaled`.
        weights: see `Weighted`; None: 1 each.

    Example:
        >>> base, model = {"w": torch.zeros(4)}, {"w": torch.ones(4)}
        >>> keep = {"w": torch.tensor([True, False, True, False])}
        >>> DareLinear(density=0.5).merged([model], base, masks=[keep])
        {'w': tensor([2., 0., 2., 0.])}

    Reference:
        Yu et al. 2024, "Language models are super Mario: absorbing abilities from homologous models as a free lunch",
        2311.03099.
    """

    def fuse_block(self, block: Block, survey: Factors) -> Tensor:
        """Base plus the scaled weighted sum of what is kept, (B,)."""
        return self.merge_linear(block, survey)

    def ballot(self, block: Block, survey: Factors) -> Ballot:
        """The thinned task vectors; all are merged."""
        return Ballot(votes_KB=self.votes(block, survey), elect=None)
