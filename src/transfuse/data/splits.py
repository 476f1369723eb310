"""Seeded, stratified splits by position, and the fingerprint that names data by their content.

Positions are sorted, so that a split depends on which examples were drawn and not on the order of drawing.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from transfuse.randomness import derive_seed, make_generator
from transfuse.types import DataError, Development, Split, Task

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(tasks: tuple[Task, ...], *splits: Split) -> str:
    """SHA-256 (hex) over the tasks' fields and the name, type, shape and bytes of every tensor of the splits.

    Equal content gives equal fingerprints, wherever and whenever it was built; one changed bit gives another one.
    """
    digest = hashlib.sha256(json.dumps([asdict(task) for task in tasks], sort_keys=True).encode())
    for split in splits:
        tensors = {"inputs": split.inputs, "ids": split.ids}
        tensors |= {f"targets/{task.name}": split.targets[task.name] for task in tasks}
        for name, tensor in tensors.items():
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(tensor.contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()


def make_development(
    *, name: str, tasks: tuple[Task, ...], train: Split, validation: Split, source: Development | None = None
) -> Development:
    """A `Development` with the fingerprint of its own splits."""
    return Development(
        name=name,
        tasks=tasks,
        train=train,
        validation=validation,
        fingerprint=fingerprint(tasks, train, validation),
        source=source,
    )


def count(fraction: float, total: int) -> int:
    """`fraction * total`, rounded half up."""
    return math.floor(fraction * total + 0.5)


def split_off(
    index: Tensor, size: int, *, labels: Tensor | None, classes: tuple[str, ...] = (), seed: int, purpose: str
) -> tuple[Tensor, Tensor]:
    """Draws `size` of the positions `index` without replacement, in the proportions of their labels.

    Args:
        index: (N,) int64 positions.
        size: how many to draw, 0 < size < N.
        labels: int64 class of every example of the data set (not of `index` alone); None draws without strata.
        classes: names of the classes for messages; default their numbers.
        seed: of the run.
        purpose: what the drawn part is for, such as `test`; each purpose has a stream of its own.

    Returns:
        The positions that are left (N - size,) and those that were drawn (size,), both sorted.

    Raises:
        DataError: too few examples in all or of one class.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < size < len(index):
        raise DataError(f"{size} examples for {purpose} cannot be split off from {len(index)}.")
    strata = None if labels is None else labels[index].numpy()
    if labels is not None:
        _check_strata(labels[index], size, classes, purpose)
    rest, part = train_test_split(
        index.numpy(), test_size=size, stratify=strata, random_state=derive_seed(seed, "split", purpose) % 2**32
    )
    return torch.from_numpy(rest).sort().values, torch.from_numpy(part).sort().values


def three_way(
    total: int,
    *,
    test_fraction: float,
    validation_fraction: float,
    labels: Tensor | None,
    classes: tuple[str, ...] = (),
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted positions of train, validation and test; `validation_fraction` is a share of what is not test."""
    rest, test = split_off(
        torch.arange(total), count(test_fraction, total), labels=labels, classes=classes, seed=seed, purpose="test"
    )
    size = count(validation_fraction, len(rest))
    train, validation = split_off(rest, size, labels=labels, classes=classes, seed=seed, purpose="validation")
    return train, validation, test


def balanced(index: Tensor, size: int, *, labels: Tensor, classes: tuple[str, ...], seed: int, purpose: str) -> Tensor:
    """Draws `size` of the positions `index`, equally many of each class (give or take one).

    Smaller draws are subsets of larger ones, so that learning curves over `size` are nested.

    Args:
        index: (N,) int64 positions.
        size: how many to draw.
        labels: int64 class of every example of the data set.
        classes: names of all classes, in the order of their numbers.
        seed: of the run.
        purpose: what the drawn part is for.

    Returns:
        (size,) int64 sorted positions.

    Raises:
        DataError: a class has too few examples.
    """
    generator = make_generator(seed, "balanced", purpose)
    # a class gets one more when its rank is below the remainder
    rank = torch.randperm(len(classes), generator=generator)
    drawn = []
    for label, name in enumerate(classes):
        members = index[labels[index] == label]
        wanted = size // len(classes) + int(rank[label] < size % len(classes))
        if len(members) < wanted:
            raise DataError(
                f"{size} balanced examples for {purpose} need {wanted} of class {name}. Found {len(members)}."
            )
        drawn.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(drawn).sort().values


def _check_strata(labels_N: Tensor, size: int, classes: tuple[str, ...], purpose: str) -> None:
    found, counts = torch.unique(labels_N, return_counts=True)
    smallest = int(counts.argmin())
    if counts[smallest] < 2:
        label = int(found[smallest])
        raise DataError(
            f"Class {classes[label] if classes else label} has 1 example left when {purpose} is split off. "
            f"At least 2 are needed; use smaller fractions, or merge or drop rare classes."
        )
    if min(size, len(labels_N) - size) < len(found):
        raise DataError(
            f"Splitting {len(labels_N)} examples into {len(labels_N) - size} and {size} for {purpose} leaves fewer "
            f"examples than the {len(found)} classes in one part."
        )
