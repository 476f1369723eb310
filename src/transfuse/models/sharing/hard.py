"""`model/sharing=hard`: one backbone for all tasks, and one head a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from transfuse.models.network import Backbone, Network
from transfuse.models.sharing.base import Make, Shape, Sharing
from transfuse.types import Task


@dataclass(frozen=True, kw_only=True)
class HardSharing(Sharing):
    """All tasks see the same features: `y_t = head_t(backbone(x))`.

    Reference:
        Caruana 1997, "Multitask Learning".
    """

    def build(self, make: Make, *, input_shape: Shape, tasks: tuple[Task, ...]) -> nn.Module:
        """What the model's builder gives, of any kind."""
        return make(input_shape=input_shape, tasks=tasks)

    def join(self, backbone: Callable[[], Backbone], heads: nn.ModuleDict, input_shape: Shape) -> Network:
        """One backbone."""
        return Network(backbone(), heads)
