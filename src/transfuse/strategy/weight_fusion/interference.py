"""What trimming and the election do to task vectors: conflicts of signs before and after, and the mass that is lost.

Dimensions in tensor names: K models, B elements of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from transfuse.state_dict import StateDict
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.block import Block, Blocks
from transfuse.strategy.weight_fusion.election import Ballot, elected_sign
from transfuse.strategy.weight_fusion.measured import Measured
from transfuse.strategy.weight_fusion.merging import Survey, TensorMethod, merge_state_dicts
from transfuse.strategy.weight_fusion.parts import Parts
from transfuse.strategy.weight_fusion.selection import Selection
from transfuse.strategy.weight_fusion.trimming import task_vectors


class Thinning(TensorMethod, Protocol):
    """A per-tensor method that leaves a part of the task vectors out, and says what it merges."""

    @property
    def selection(self) -> Selection:
        """Which tensors are fused."""

    def ballot(self, block: Block, survey: Survey) -> Ballot:
        """What is left of the task vectors of a block."""


@dataclass(frozen=True, kw_only=True)
class Interference:
    """How far models get in each other's way in one tensor, or in all.

    Attributes:
        name: of the tensor; `all` for the total.
        elements: number of elements.
        conflicts: elements at which two non-zero task vectors have opposite signs, before and after trimming.
        shared: elements at which at least two task vectors are not zero, before and after.
        mass: sum of |t_i| over all votes t_i: what trimming leaves, weighted where weights count in the election.
        lost: sum of |t_i| over the votes without the elected sign; None where nothing is elected.
    """

    name: str
    elements: int
    conflicts: tuple[int, int]
    shared: tuple[int, int]
    mass: float
    lost: float | None

    def row(self) -> dict[str, Any]:
        """Shares for the record; None where nothing is left that could disagree."""
        before, after = map(_share, self.conflicts, self.shared)
        return {
            "name": self.name,
            "elements": self.elements,
            "sign_conflict": before,
            "sign_conflict_trimmed": after,
            "mass_lost": None if self.lost is None else _share(self.lost, self.mass),
        }


def interference_of(method: Thinning, context: Context, parts: Parts, measured: Measured) -> dict[str, Any]:
    """For the record: `total` over all fused tensors, and the `tensors` one by one.

    Walks through the merge once more, block by block: masks that depend on the seed are those of the merge.

    Args:
        method: with numbers in all fields.
        context: of the run.
        parts: the members and their base.
        measured: for the merge.
    """
    found = interference(
        method, parts.states, parts.base, measured=measured, seed=context.seed, selection=method.selection
    )
    total, *tensors = found
    return {"total": total.row(), "tensors": [tensor.row() for tensor in tensors]}


def interference(
    method: Thinning,
    state_dicts: Sequence[StateDict],
    base: StateDict | None,
    *,
    measured: Measured | None = None,
    seed: int = 0,
    selection: Selection | None = None,
) -> tuple[Interference, ...]:
    """The total first, then each fused tensor; arguments as those of `merge_state_dicts`."""
    watch = _Watch(method=method, bound=method)
    names = [f"model {index}" for index in range(len(state_dicts))]
    merge_state_dicts(watch, state_dicts, names=names, base=base, measured=measured, seed=seed, selection=selection)
    found = [_joined(key, blocks) for key, blocks in watch.seen.items()]
    return (_joined("all", found), *found)


def sign_conflicts(vectors_KB: Tensor) -> tuple[int, int]:
    """At how many elements non-zero entries have opposite signs, and at how many at least two are not zero.

    Example:
        >>> sign_conflicts(torch.tensor([[1.0, 2.0, 0.0], [-1.0, 3.0, 1.0]]))
        (1, 2)
    """
    positive_B, negative_B = (vectors_KB > 0).sum(0), (vectors_KB < 0).sum(0)
    conflicts = int(((positive_B > 0) & (negative_B > 0)).sum())
    return conflicts, int((positive_B + negative_B > 1).sum())


def lost_mass(ballot: Ballot) -> float | None:
    """Sum of |t_i| over the votes t_i that do not have the elected sign; None where nothing is elected.

    Example:
        >>> lost_mass(Ballot(votes_KB=torch.tensor([[3.0, 1.0], [-1.0, 1.0]]), elect="mass"))
        1.0
    """
    if ballot.elect is None:
        return None
    # |t_i| where s t_i < 0
    against_KB = (ballot.votes_KB * -elected_sign(ballot.votes_KB, elect=ballot.elect)).clamp_min_(0)
    return float(against_KB.sum(dtype=torch.float64))


@dataclass(frozen=True, kw_only=True)
class _Watch:
    """A per-tensor method that fuses nothing: it counts what the watched one would merge.

    Attributes:
        method: says what is merged.
        bound: surveys; the method when it knows all tensors.
        seen: key -> one entry a block.
    """

    method: Thinning
    bound: TensorMethod
    seen: dict[str, list[Interference]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """As the method takes its tensors."""
        return self.method.whole

    @property
    def size(self) -> int:
        """As the method takes its tensors."""
        return self.method.size

    def bind(self, tensors: Sequence[Blocks]) -> _Watch:
        """Watches the bound method, and writes into the same book."""
        return replace(self, bound=self.bound.bind(tensors))

    def survey(self, blocks: Blocks) -> Survey | None:
        """The method's own."""
        return self.bound.survey(blocks)

    def fuse_block(self, block: Block, survey: Survey) -> Tensor:
        """The base as it is, (B,); the block is counted."""
        assert block.base_B is not None, "task vectors have a base"
        ballot = self.method.ballot(block, survey)
        before, after = sign_conflicts(task_vectors(block)), sign_conflicts(ballot.votes_KB)
        counted = Interference(
            name=block.key,
            elements=len(block.base_B),
            conflicts=(before[0], after[0]),
            shared=(before[1], after[1]),
            mass=float(ballot.votes_KB.abs().sum(dtype=torch.float64)),
            lost=lost_mass(ballot),
        )
        self.seen.setdefault(block.key, []).append(counted)
        return block.base_B


def _joined(name: str, parts: Sequence[Interference]) -> Interference:
    lost = [part.lost for part in parts if part.lost is not None]
    return Interference(
        name=name,
        elements=sum(part.elements for part in parts),
        conflicts=(sum(part.conflicts[0] for part in parts), sum(part.conflicts[1] for part in parts)),
        shared=(sum(part.shared[0] for part in parts), sum(part.shared[1] for part in parts)),
        mass=math.fsum(part.mass for part in parts),
        lost=math.fsum(lost) if lost else None,
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
