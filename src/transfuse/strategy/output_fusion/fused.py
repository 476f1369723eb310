"""The network that output fusion makes: members and combiners in one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from transfuse.strategy.output_fusion.combiner import Combiner


class Fused(nn.Module):
    """Maps inputs (N, ...) to {task: logits (N, C)}: all members, then one combiner a task.

    Members that no combiner listens to are absent. Combiners still count all M members; the places of absent ones are
    filled with zeros, which have weight 0, so that this network and the combiners over all members agree exactly.

    Args:
        members: the networks that are kept, in the pool's order.
        combiners: task name -> combiner over all M members.
        kept: positions of `members` in the pool.
        num_members: M.
    """

    def __init__(
        self, members: Sequence[nn.Module], combiners: Mapping[str, Combiner], *, kept: Sequence[int], num_members: int
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.combiners = nn.ModuleDict(combiners)
        self.kept = tuple(kept)
        self.num_members = num_members

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Fused logits of every task."""
        outputs = [member(inputs) for member in self.members]
        return {
            task: combiner(self._placed([output[task] for output in outputs]))
            for task, combiner in self.combiners.items()
        }

    def _placed(self, logits: list[Tensor]) -> Tensor:
        """(M, N, C): kept members at their positions in the pool, zeros elsewhere."""
        absent = torch.zeros_like(logits[0])
        by_position = dict(zip(self.kept, logits, strict=True))
        return torch.stack([by_position.get(position, absent) for position in range(self.num_members)])
