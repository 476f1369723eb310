"""`parameter_transfer/bss`: suppress features that do not transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.models.features import require_network
from transfuse.strategy.parameter_transfer.full_finetune import FullFinetune
from transfuse.strategy.parameter_transfer.ranges import require_nonnegative
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import Penalty


@dataclass(frozen=True, kw_only=True)
class BatchSpectralShrinkage(FullFinetune):
    """`min L + eta sum sigma^2` over the k smallest singular values of a batch's penultimate features.

    Attributes:
        eta: >= 0.
        k: how many singular values, >= 1.

    Reference:
        Chen et al. 2019, "Catastrophic forgetting meets negative transfer: batch spectral shrinkage for safe transfer
        learning", NeurIPS.
    """

    eta: float = 0.001
    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_nonnegative("eta", self.eta)
        if self.k < 1:
            raise HyperparameterError(f"`k` should be at least 1. Found `k = {self.k}`.")

    def penalties(self, network: nn.Module, source: BaseModel, carried: frozenset[str]) -> tuple[Penalty, ...]:
        """The term."""
        from transfuse.training.penalties import SmallSingularValues

        require_network(network, self.name)
        return (SmallSingularValues(self.eta, self.k),)
