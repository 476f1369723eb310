"""Base models in another order of their units: the same functions, other weights.

Dimensions in tensor names: N examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from transfuse.alignment import Specification, specify
from transfuse.base_models.model import BaseModel, BaseModels, Description
from transfuse.randomness import make_generator
from transfuse.strategy.base import Context
from transfuse.types import Development, SplitName

_TRACED = 4  # examples


class PermutedModels(BaseModels):
    """A pool whose members have permuted weights; what they compute, and so their predictions, is as before.

    Args:
        pool: the members as they were trained.
        states: permuted weights, one state dict a member.
    """

    def __init__(self, pool: BaseModels, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.description = pool.description
        self._pool = pool
        self._states = tuple(states)

    def __getitem__(self, index: int) -> BaseModel:
        """Member `index` with its permuted weights."""
        return replace(self._pool[index], state=self._states[index])

    @property
    def base(self) -> BaseModel | None:
        """The start, as it was."""
        return self._pool.base

    def logits(self, split: SplitName) -> dict[str, Tensor]:
        """The members' own: a permutation changes none."""
        return self._pool.logits(split)

    def out_of_fold_logits(self, folds_N: Tensor) -> dict[str, Tensor]:
        """The members' own."""
        return self._pool.out_of_fold_logits(folds_N)

    def fold_pools(self, folds_N: Tensor) -> Sequence[BaseModels]:
        """The pools as they were trained."""
        return self._pool.fold_pools(folds_N)

    def used(self) -> tuple[BaseModel, ...]:
        """What the run paid for."""
        return self._pool.used()


def check_held(development: Development, base_models: Description, held: Mapping[str, str] | None) -> None:
    """Raises, before anything is trained, what `specifications` would: a network like the first member's is traced.

    Args:
        development: the problem.
        base_models: the pool.
        held: patterns of symbols -> `fixed`; without any nothing is traced.
    """
    if held and base_models.build is not None:
        inputs = development.train.inputs[:_TRACED]
        specify(base_models.build().eval(), inputs, make_generator(0, "align/trial"), held)


def specifications(context: Context, held: Mapping[str, str] | None) -> list[Specification]:
    """One a member: members with heads of the same tasks have the same.

    Args:
        context: of the run.
        held: patterns of symbols -> `fixed`, or None.
    """
    inputs = context.development.train.inputs[:_TRACED]
    found: dict[tuple[str, ...], Specification] = {}
    for member in context.base_models:
        tasks = member.description.tasks
        if tasks not in found:
            found[tasks] = specify(member.network(), inputs, context.generator("align/trial"), held)
    return [found[member.description.tasks] for member in context.base_models]
