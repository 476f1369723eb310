"""`parameter_transfer/gradual_unfreeze`: the head first, then one group after another from the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of, train_only
from transfuse.strategy.parameter_transfer.ranges import require_positive, require_share
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import Phase


@dataclass(frozen=True, kw_only=True)
class GradualUnfreeze(ParameterTransfer):
    """Trains the head, and frees the next groups from the top at equal intervals until all are free at `finish_at`.

    Attributes:
        finish_at: share of all steps, in (0, 1], at which everything is trained.
        groups_per_step: groups that are freed at once, >= 1.
        lr_factor: learning rate relative to `training.lr`, > 0.

    Reference:
        Howard & Ruder 2018, "Universal language model fine-tuning for text classification", 1801.06146.
    """

    finish_at: float = 0.5
    groups_per_step: int = 1
    lr_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("finish_at", self.finish_at)
        require_positive("lr_factor", self.lr_factor)
        if self.groups_per_step < 1:
            raise HyperparameterError(
                f"`groups_per_step` should be at least 1. Found `groups_per_step = {self.groups_per_step}`."
            )

    def comparable_from(self, total_steps: int) -> int:
        """When everything is trained."""
        return round(self.finish_at * total_steps)

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """The head alone, then ever more groups."""
        *backbone, _ = groups_of(network, self.name)
        backbone.reverse()
        frozen = [backbone[start:] for start in range(0, len(backbone), self.groups_per_step)]
        every = {name for _, names in backbone for name in names}
        phases = [
            train_only(
                network,
                f"without {', '.join(group for group, _ in rest)}",
                every - {name for _, names in rest for name in names},
                lr_factor=self.lr_factor,
                share=self.finish_at / len(frozen),
            )
            for rest in frozen
        ]
        if self.finish_at < 1:
            share = 1 - self.finish_at
            phases.append(train_only(network, "all", every, lr_factor=self.lr_factor, share=share))
        return tuple(phases)
