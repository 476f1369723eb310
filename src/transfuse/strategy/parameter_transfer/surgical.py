"""`parameter_transfer/surgical`: train the group whose weights the target wants changed most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from transfuse.strategy.parameter_transfer.base import ParameterTransfer
from transfuse.strategy.parameter_transfer.groups import groups_of, train_only
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError

if TYPE_CHECKING:
    from transfuse.training.plan import ClosedForm, Phase


@dataclass(frozen=True, kw_only=True)
class Surgical(ParameterTransfer):
    """Trains one group of layers and the head, or all groups at rates by how much each wants to change.

    The want of group l is `RGN_l = |g_l| / |w_l|`: g the gradient of the training loss at the source's weights, under a
    head that is a linear probe.

    Attributes:
        group: name of a group (`stem`, `stages.0`, ..., `neck`), `auto` (largest RGN), or `all`.
        mode: `pick` one group; `weight`: each group's learning rate is `training.lr` times RGN / max RGN.

    Reference:
        Lee et al. 2023, "Surgical fine-tuning improves adaptation to distribution shifts", 2210.11466.
    """

    group: str = "auto"
    mode: str = "pick"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("pick", "weight"):
            raise HyperparameterError(f"`mode` should be pick or weight. Found `mode = {self.mode}`.")
        if self.mode == "weight" and self.group != "auto":
            raise HyperparameterError(
                f"`group` should be auto with mode=weight, which trains all. Found `group = {self.group}`."
            )

    def leading(self) -> tuple[ClosedForm, ...]:
        """A probe and the gradient, where they decide."""
        from transfuse.training.probe import ProbeHeads
        from transfuse.training.relative_gradient import ByRelativeGradient

        if self.group != "auto":
            return super().leading()
        return (ProbeHeads(), ByRelativeGradient(pick=self.mode == "pick"))

    def phases(self, network: nn.Module) -> tuple[Phase, ...]:
        """One phase; with `group=auto` everything, until the gradient is known."""
        from transfuse.training.plan import ParameterGroup, Phase

        groups = groups_of(network, self.name)
        if self.group in ("auto", "all"):
            parts = [tuple(names) for _, names in groups]
            return (Phase(name="all", share=1.0, groups=tuple(ParameterGroup(names=names) for names in parts)),)
        known = dict(groups[:-1])
        if self.group not in known:
            raise HyperparameterError(
                f"`group` should be auto, all, or a group of the network. Found `group = {self.group}`."
                f"{nearest(self.group, known)}"
            )
        return (train_only(network, self.group, known[self.group]),)
