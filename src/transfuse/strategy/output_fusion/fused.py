"""The network that output fusion makes: members and combiners in one module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from transfuse.strategy.output_fusion.combiner import Combiner
from transfuse.strategy.output_fusion.features import example_features
from transfuse.strategy.output_fusion.members import Members


class Fused(nn.Module):
    """Maps inputs (N, ...) to {task: logits (N, C)}: all members, then one combiner a task.

    Members that no combiner listens to are absent. Combiners still count all M members; the places of absent ones are
    filled with zeros, which have weight 0, so that this network and the combiners over all members agree exactly.

    Args:
        members: the networks that are kept, in the pool's order.
        combiners: task name -> combiner over all M members.
        kept: positions of `members` in the pool.
        num_members: M.

    Attributes:
        members: run one after the other or stacked, by `members.inference`.
    """

    def __init__(
        self, members: Sequence[nn.Module], combiners: Mapping[str, Combiner], *, kept: Sequence[int], num_members: int
    ) -> None:
        super().__init__()
        self.members = Members(members)
        self.combiners = nn.ModuleDict(combiners)
        self.kept = tuple(kept)
        self.num_members = num_members

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Fused logits of every task."""
        outputs_KNC = self.members.outputs(inputs, self.combiners)
        return {
            task: combiner(self._placed(outputs_KNC[task]), example_features(combiner.reads, inputs, self.members[0]))
            for task, combiner in self._combiners()
        }

    def _combiners(self) -> Iterator[tuple[str, Combiner]]:
        for task, combiner in self.combiners.items():
            assert isinstance(combiner, Combiner)
            yield task, combiner

    def _placed(self, logits_KNC: Tensor) -> Tensor:
        """(M, N, C): kept members at their positions in the pool, zeros elsewhere."""
        if len(self.kept) == self.num_members:
            return logits_KNC
        logits_MNC = logits_KNC.new_zeros(self.num_members, *logits_KNC.shape[1:])
        logits_MNC[list(self.kept)] = logits_KNC
        return logits_MNC
