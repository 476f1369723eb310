"""`parameter_transfer/linear_probe`: the source's features as they are, and the best linear head on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.probed import Probed

if TYPE_CHECKING:
    from transfuse.training.plan import Phase


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Probed):
    """w frozen; `min over h of C sum_i loss_i + 1/2 |W|^2` on features that are computed once, in evaluation mode.

    Cross-entropy for classification, the logistic loss for labels, squared error (ridge) for values; to convergence, in
    float64. No step is taken and no augmentation is seen.

    Attributes:
        head, penalty, standardize: see `Probed`.

    Reference:
        Kornblith et al. 2019, "Do better ImageNet models transfer better?", 1805.08974.
    """

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """None."""
        return ()
