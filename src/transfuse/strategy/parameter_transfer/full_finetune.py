"""`parameter_transfer/full_finetune`: load all weights, then train all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.models.network import head_names
from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import Phase


@dataclass(frozen=True, kw_only=True)
class FullFinetune(ParameterTransfer):
    """theta = theta_source, then min over theta of L(theta; D).

    Attributes:
        lr_factor: learning rate of the backbone relative to `training.lr`, > 0.
        head_lr_factor: learning rate of the heads relative to `training.lr`, > 0.
        batch_norm: mode of BatchNorm while training: `train`, `eval` or `reestimate`.
    """

    lr_factor: float = 1.0
    head_lr_factor: float = 1.0
    batch_norm: str = "train"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("lr_factor", "head_lr_factor"):
            if getattr(self, field) <= 0:
                raise HyperparameterError(f"`{field}` should be > 0. Found `{field} = {getattr(self, field)}`.")
        if self.batch_norm not in ("train", "eval", "reestimate"):
            raise HyperparameterError(
                f"`batch_norm` should be train, eval or reestimate. Found `batch_norm = {self.batch_norm}`."
            )

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase: everything, all the time."""
        from transfuse.training.plan import ParameterGroup, Phase

        head = head_names(network)
        names = [name for name, _ in network.named_parameters()]
        backbone = tuple(name for name in names if name not in head)
        heads = tuple(name for name in names if name in head)
        groups = tuple(
            ParameterGroup(names=group, lr_factor=factor, batch_norm=self.batch_norm)
            for group, factor in ((backbone, self.lr_factor), (heads, self.head_lr_factor))
            if group
        )
        return (Phase(name="all", share=1.0, groups=groups),)
