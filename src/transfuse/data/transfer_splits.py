"""The splits of a transfer problem from three sets of images: source, target's pool and test.

Dimensions in tensor names: N examples.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require, require_fraction
from transfuse.data.scaling import pixel_scaling
from transfuse.data.splits import balanced, count, make_development, split_off
from transfuse.types import HyperparameterError, Problem, Split, Task

Scale = Callable[[Split], Callable[[Split], Split]]
Change = Callable[[Split, Literal["pool", "test"], int], Split]


def standardized(train: Split) -> Callable[[Split], Split]:
    """Scales every split by the mean and deviation of the training pixels."""
    return pixel_scaling(train.inputs).apply_to


def as_they_are(train: Split) -> Callable[[Split], Split]:
    """Scales nothing: inputs are numbers of tokens."""
    return lambda split: split


def unchanged(split: Split, part: Literal["pool", "test"], seed: int) -> Split:
    """What the target's images go through where they differ from the source's in their classes or origin alone."""
    return split


def of_classes(split: Split, task: Task, classes: Sequence[int]) -> Split:
    """The examples of these classes, whose labels become their places in `classes`.

    Args:
        split: with labels of `task`.
        task: names the target.
        classes: old labels, in the order of the new ones.

    Example:
        >>> import torch
        >>> from transfuse.types import Split, Task
        >>> task = Task(name="digit", kind="classification", outputs=3, classes=("0", "1", "2"))
        >>> split = Split(inputs=torch.zeros(4, 1), targets={"digit": torch.tensor([0, 2, 1, 2])}, ids=torch.arange(4))
        >>> chosen = of_classes(split, task, (2, 0))
        >>> chosen.ids.tolist(), chosen.targets["digit"].tolist()
        ([0, 1, 3], [1, 0, 0])
    """
    place = torch.full((task.outputs,), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    labels_N = place[split.targets[task.name]]
    chosen = replace(split, targets={task.name: labels_N})
    return chosen.select(labels_N >= 0)


def task_of_classes(task: Task, classes: Sequence[int]) -> Task:
    """The task with these of its classes, in this order."""
    return replace(task, outputs=len(classes), classes=tuple(task.classes[index] for index in classes))


def require_classes(field: str, classes: Sequence[int], task: Task) -> None:
    """Raises `HyperparameterError` unless `classes` are at least two different labels of `task`."""
    fit = len(classes) >= 2 and len(set(classes)) == len(classes) and all(0 <= each < task.outputs for each in classes)
    require(fit, field, f"at least two different numbers in 0..{task.outputs - 1}", list(classes))


@dataclass(frozen=True, kw_only=True)
class TransferSplits:
    """How large the splits are that a transfer problem draws.

    The source's training statistics standardize everything. The target's pool is changed as a whole before anything is
    drawn of it, so an image looks the same whatever `target_size` is; the validation split does not depend on
    `target_size` either, and smaller targets are subsets of larger ones.

    Attributes:
        source_validation_fraction: share of the source images that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced over the classes; at least one a class.
        validation_size: validation examples of the target, stratified; at least one a class.
        allow_overlap: whether an example may be in the source and in the target.
    """

    source_validation_fraction: float
    target_size: int
    validation_size: int
    allow_overlap: bool = False

    def check(self, task: Task) -> None:
        """Raises `HyperparameterError` where a field is out of its range; `task` is the target's."""
        least = f">= {task.outputs} (one image a class)"
        require_fraction("source_validation_fraction", self.source_validation_fraction)
        require(self.target_size >= task.outputs, "target_size", least, self.target_size)
        require(self.validation_size >= task.outputs, "validation_size", least, self.validation_size)

    def build(
        self,
        *,
        name: str,
        tasks: tuple[Task, Task],
        source: Split,
        pool: Split,
        test: Split,
        seed: int,
        scale: Scale = standardized,
        change: Change = unchanged,
        notes: tuple[str, ...] = (),
    ) -> Problem:
        """The problem from images that are not scaled yet.

        Args:
            name: of the data set.
            tasks: of the source and of the target, one classification each; their classes are named.
            source: images of the source problem.
            pool: images that the target's training and validation splits are drawn from.
            test: images to test on.
            seed: of the run.
            scale: makes of the source's training split what scales every split.
            change: what makes standardized target and test images differ from the source's.
            notes: of the problem.

        Raises:
            HyperparameterError: an image is in two parts.
            DataError: a part is too small.
        """
        shared = self._shared(source, pool, test)
        index, held_out = self._source_index(tasks[0], source, seed)
        train = source.select(index)
        scaled = scale(train)
        first = make_development(
            name=f"{name}/source",
            tasks=tasks[:1],
            train=scaled(train),
            validation=scaled(source.select(held_out)),
        )
        index, held_out = self._target_index(tasks[1], pool, seed)
        changed = change(scaled(pool), "pool", seed)
        development = make_development(
            name=name, tasks=tasks[1:], train=changed.select(index), validation=changed.select(held_out), source=first
        )
        return Problem(
            development=development,
            test=change(scaled(test), "test", seed),
            notes=(*notes, _on_overlap(shared)),
        )

    def _source_index(self, task: Task, source: Split, seed: int) -> tuple[Tensor, Tensor]:
        """Positions of the source's training and validation examples."""
        return split_off(
            torch.arange(len(source)),
            count(self.source_validation_fraction, len(source)),
            labels=source.targets[task.name],
            classes=task.classes,
            seed=seed,
            purpose="source validation",
        )

    def _target_index(self, task: Task, pool: Split, seed: int) -> tuple[Tensor, Tensor]:
        """Positions of the target's training and validation examples."""
        labels_N, classes, every = pool.targets[task.name], task.classes, torch.arange(len(pool))
        rest, held_out = split_off(
            every, self.validation_size, labels=labels_N, classes=classes, seed=seed, purpose="target validation"
        )
        index = balanced(rest, self.target_size, labels=labels_N, classes=classes, seed=seed, purpose="target training")
        return index, held_out

    def _shared(self, source: Split, pool: Split, test: Split) -> int:
        """How many examples are in the source and in the target's pool; none may be in the test split and elsewhere."""
        for name, part in {"the source": source, "the target": pool}.items():
            found = int(torch.isin(part.ids, test.ids).sum())
            if found:
                raise HyperparameterError(f"No example of {name} should be in the test split. Found {found}.")
        shared = int(torch.isin(source.ids, pool.ids).sum())
        if shared and not self.allow_overlap:
            raise HyperparameterError(
                f"No example should be in the source and in the target. Found {shared} in both. "
                f"Did you mean split_images=true, or allow_overlap=true?"
            )
        return shared


@dataclass(frozen=True, kw_only=True)
class FewOfTarget(Dataset, ABC):
    """A transfer problem with few examples of the target.

    Attributes:
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced; at least one a class.
        validation_size: validation examples of the target, stratified; at least one a class.
    """

    source_validation_fraction: float = 0.2
    target_size: int = 50
    validation_size: int = 100

    @property
    def splits(self) -> TransferSplits:
        """How the splits are drawn."""
        return TransferSplits(
            source_validation_fraction=self.source_validation_fraction,
            target_size=self.target_size,
            validation_size=self.validation_size,
        )


def _on_overlap(shared: int) -> str:
    if not shared:
        return "No example is in two splits."
    return f"{shared} examples are in the source and in the target's pool, which flatters transfer."
