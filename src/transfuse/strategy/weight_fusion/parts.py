"""Which tensors of the base models are fused, and the network that they make.

One head set in all members: everything is fused. One head a member (`base_models=per_task`), or `fuse=backbone`: the
backbone is fused and each task keeps its own head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from transfuse.base_models.model import BaseModel, MemberDescription
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.selection import HEADS


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The members of a fusion.

    Attributes:
        members: K base models.
        states: what is fused of each.
        base: the same part of the base, or None.
        heads: task -> the member whose head it keeps; empty where heads are fused.
    """

    members: tuple[BaseModel, ...]
    states: tuple[Mapping[str, Tensor], ...]
    base: Mapping[str, Tensor] | None
    heads: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, for messages."""
        return tuple(member.description.name for member in self.members)

    def network(self, fused: Mapping[str, Tensor]) -> nn.Module:
        """A new network with the fused weights, and the members' heads where they are not fused."""
        network = self.members[0].network()
        if self.heads:
            network.heads = nn.ModuleDict(
                {task: self.members[index].network().get_submodule(HEADS + task) for task, index in self.heads.items()}
            )
        network.load_state_dict({**network.state_dict(), **fused})
        return network.eval()


def take_apart(context: Context, *, with_base: bool, fuse: str | None = None) -> Parts:
    """The parts of the run's base models; trains them where they are not stored.

    Args:
        context: of the run.
        with_base: whether the method uses what the members started from.
        fuse: `backbone` keeps heads even where the members have the same.
    """
    members = tuple(context.base_models)
    separate = heads_apart([member.description for member in members], fuse)
    tasks = [task.name for task in context.development.tasks]
    heads = {task: _owner(members, task) for task in tasks} if separate else {}
    states = tuple(_fusible(member.state) if separate else dict(member.state) for member in members)
    base = context.base_models.base if with_base else None
    return Parts(
        members=members,
        states=states,
        base=None if base is None else {key: value for key, value in base.state.items() if key in states[0]},
        heads=heads,
    )


def heads_apart(members: Sequence[MemberDescription], fuse: str | None) -> bool:
    """Whether each task keeps a head of its own: the members' tasks differ, or the backbone alone should be fused."""
    return fuse == "backbone" or len({member.tasks for member in members}) > 1


def _fusible(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(HEADS)}


def _owner(members: tuple[BaseModel, ...], task: str) -> int:
    return next(index for index, member in enumerate(members) if task in member.description.tasks)
