"""Predictions of training data by base models that were trained without them (cross-validation of the whole recipe)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from transfuse.base_models.base import Members
from transfuse.base_models.recipe import Recipe
from transfuse.data.splits import fingerprint
from transfuse.types import Development, Split


class FoldPool(Protocol):
    """A pool that was trained without a fold."""

    def held_out_logits(self, held: Split) -> dict[str, Tensor]:
        """Task -> (M, N, C) outputs of all members on the fold."""


def out_of_fold_logits(
    development: Development, folds_N: Tensor, pool_on: Callable[[Development, int], FoldPool]
) -> dict[str, Tensor]:
    """Task -> (M, N, C) outputs on the training split, in its order.

    Args:
        development: the problem.
        folds_N: (N,) fold number of every training example.
        pool_on: called once a fold with the problem without it and its number; trains on first need.
    """
    parts: list[dict[str, Tensor]] = []
    positions: list[Tensor] = []
    for fold, rest in fold_problems(development, folds_N):
        held_N = folds_N == fold
        pool = pool_on(rest, fold)
        parts.append(pool.held_out_logits(development.train.select(held_N)))
        positions.append(held_N.nonzero().squeeze(1))
    order_N = torch.cat(positions).argsort()
    return {task.name: torch.cat([part[task.name] for part in parts], dim=1)[:, order_N] for task in development.tasks}


def fold_problems(development: Development, folds_N: Tensor) -> Iterator[tuple[int, Development]]:
    """Each fold's number and the problem without it, in order."""
    for fold in sorted(set(folds_N.tolist())):
        yield fold, without(development, folds_N == fold)


def without(development: Development, held_N: Tensor) -> Development:
    """The problem without these training examples, under the fingerprint of what is left; validation data stay."""
    train = development.train.select(~held_N)
    content = fingerprint(development.tasks, train, development.validation)
    return replace(development, train=train, fingerprint=content)


def named_for_fold(members: Members, fold: int) -> Members:
    """The same members, called `<name>-fold<fold>`, starts included; keys know nothing of names."""
    return Members(
        recipes=tuple(_named(recipe, fold) for recipe in members.recipes),
        base=None if members.base is None else _named(members.base, fold),
    )


def num_trainings(members: Members) -> int:
    """How many trainings on the problem's own data a pool takes, those of starts included."""
    recipes = [*members.recipes, *(recipe.start for recipe in members.recipes if recipe.start is not None)]
    return len({each.training_key for each in recipes if each.training is not None and each.trained_on == "target"})


def _named(recipe: Recipe, fold: int) -> Recipe:
    start = None if recipe.start is None else _named(recipe.start, fold)
    return replace(recipe, name=f"{recipe.name}-fold{fold}", start=start)
