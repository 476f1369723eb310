"""`parameter_transfer/bitfit`: train biases and the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of, train_only
from transfuse.strategy.parameter_transfer.ranges import require_positive

if TYPE_CHECKING:
    from transfuse.training.plan import Phase


@dataclass(frozen=True, kw_only=True)
class BitFit(ParameterTransfer):
    """Trains all biases, those of normalization layers too, and the head. BatchNorm keeps the source's statistics.

    Attributes:
        lr_factor: learning rate relative to `training.lr`, > 0.

    Reference:
        Ben Zaken et al. 2022, "BitFit: simple parameter-efficient fine-tuning", 2106.10199.
    """

    lr_factor: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("lr_factor", self.lr_factor)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase."""
        groups_of(network, self.name)
        biases = {name for name, _ in network.named_parameters() if name.rpartition(".")[2] == "bias"}
        return (train_only(network, "biases", biases, lr_factor=self.lr_factor),)
