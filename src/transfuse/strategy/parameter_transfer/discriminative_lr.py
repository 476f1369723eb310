"""`parameter_transfer/discriminative_lr`: the nearer to the input, the smaller the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of
from transfuse.strategy.parameter_transfer.ranges import require_share
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import Phase


@dataclass(frozen=True, kw_only=True)
class DiscriminativeLr(ParameterTransfer):
    """`lr_l = lr d^(L - l)` for the groups l = 0..L from input to head.

    Attributes:
        decay: d in (0, 1]. The paper's division by 2.6 is 0.385.
        min_factor: smallest factor, in [0, 1].

    Reference:
        Howard & Ruder 2018, 1801.06146; Clark et al. 2020, "ELECTRA", 2003.10555.
    """

    decay: float = 0.75
    min_factor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("decay", self.decay)
        if not 0 <= self.min_factor <= 1:
            raise HyperparameterError(f"`min_factor` should be in [0, 1]. Found `min_factor = {self.min_factor}`.")

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase, a rate a group."""
        from transfuse.training.plan import ParameterGroup, Phase

        groups = groups_of(network, self.name)
        last = len(groups) - 1
        return (
            Phase(
                name="all",
                share=1.0,
                groups=tuple(
                    ParameterGroup(names=tuple(names), lr_factor=max(self.decay ** (last - index), self.min_factor))
                    for index, (_, names) in enumerate(groups)
                ),
            ),
        )
