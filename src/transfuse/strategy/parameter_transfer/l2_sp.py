"""`parameter_transfer/l2_sp`: stay near the starting point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.ranges import require_nonnegative

if TYPE_CHECKING:
    from transfuse.training.plan import Penalty, Phase


@dataclass(frozen=True, kw_only=True)
class L2Sp(FullFinetune):
    """`min L + alpha/2 |w - w0|^2 + beta/2 |v|^2`: w0 came from the source, v (head, fresh tensors) did not.

    Weight decay is off. Running statistics are not penalized.

    Attributes:
        alpha: >= 0. The paper's 0.1 is for SGD on many steps; with Adam on few it costs accuracy.
        beta: >= 0.

    Reference:
        Li et al. 2018, "Explicit inductive bias for transfer learning with convolutional networks", 1802.01483.
    """

    alpha: float = 0.01
    beta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("alpha", self.alpha)
        require_nonnegative("beta", self.beta)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase without weight decay."""
        return tuple(
            replace(phase, groups=tuple(replace(group, weight_decay=0.0) for group in phase.groups))
            for phase in super().phases(network)
        )

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """The term, from the weights as they were loaded."""
        from transfuse.training.penalties import StartingPoint

        values = dict(network.named_parameters())
        starts = {name: value for name, value in values.items() if name in carried}
        others = tuple(name for name in values if name not in carried)
        return (StartingPoint(starts, self.alpha, others, self.beta),)
