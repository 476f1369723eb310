"""`parameter_transfer/batch_norm_only`: train the affine parameters of normalization layers, and the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of, norm_parameters, train_only
from transfuse.strategy.parameter_transfer.ranges import require_positive
from transfuse.types import HyperparameterError, UnsupportedStructureError

if TYPE_CHECKING:
    from transfuse.training.plan import ClosedForm, Phase


@dataclass(frozen=True, kw_only=True)
class BatchNormOnly(ParameterTransfer):
    """Trains the scales and shifts of normalization layers, and the head. All else is frozen.

    Attributes:
        lr_factor: learning rate relative to `training.lr`, > 0.
        reestimate_first: BatchNorm statistics are measured on the target before the first step.
        norms: `batch` (BatchNorm alone) or `all` normalization layers.

    Reference:
        Frankle et al. 2021, "Training BatchNorm and only BatchNorm", 2003.00152.
    """

    lr_factor: float = 3.0
    reestimate_first: bool = True
    norms: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("lr_factor", self.lr_factor)
        if self.norms not in ("batch", "all"):
            raise HyperparameterError(f"`norms` should be batch or all. Found `norms = {self.norms}`.")

    def leading(self) -> tuple[ClosedForm, ...]:
        """Statistics of the target."""
        from transfuse.training.statistics import MeasureStatistics

        return (*((MeasureStatistics(),) if self.reestimate_first else ()), *super().leading())

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase."""
        groups_of(network, self.name)
        trained = norm_parameters(network, batch_only=self.norms == "batch")
        if not trained:
            kind = "BatchNorm" if self.norms == "batch" else "normalization"
            raise UnsupportedStructureError(
                f"{self.name} trains {kind} layers. Found none in {type(network).__name__}. Did you mean "
                "strategy=parameter_transfer/bitfit, or model.batch_norm=true?"
            )
        return (train_only(network, "norms", trained, lr_factor=self.lr_factor),)
