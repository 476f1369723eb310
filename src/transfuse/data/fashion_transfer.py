"""What the transfer problems on Fashion-MNIST have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from transfuse.data.dataset import require
from transfuse.data.fashion_mnist import ARCHIVE, ARTICLE, read_fashion_mnist, subset
from transfuse.data.resizing import averaged
from transfuse.data.transfer_splits import FewOfTarget, TransferSplits, of_classes, task_of_classes
from transfuse.types import HyperparameterError, Problem, Split

ALL = tuple(range(ARTICLE.outputs))


@dataclass(frozen=True, kw_only=True)
class FashionTransfer(FewOfTarget, ABC):
    """Many images of the source, few of the target, and the test file's images of the target's classes.

    The source is in the first half of the training file, the target's pool in the second half.

    Attributes:
        source_size: images of the source, for its training and validation, stratified; null: all there are.
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced; at least one a class.
        validation_size: validation examples of the target, stratified; at least one a class.
        pool: side of the squares that are averaged to one pixel: 1, 2, 4, 7 or 14; 2 gives 14 x 14.
        split_images: whether source and target have a half of the training file each; else both have all of it.
        allow_overlap: whether an image may be in the source and in the target, where images are not split.
    """

    source_size: int | None = None
    validation_size: int = 1000
    pool: int = 2
    split_images: bool = True
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        require(self.source_size is None or self.source_size >= 100, "source_size", ">= 100 or null", self.source_size)
        require(self.pool in (1, 2, 4, 7, 14), "pool", "1, 2, 4, 7 or 14", self.pool)
        source, target = self.classes
        self.splits.check(task_of_classes(ARTICLE, target))
        if not (self.split_images or self.allow_overlap) and set(source) & set(target):
            raise HyperparameterError(
                "`split_images` should be true where source and target have classes in common. "
                "Found `split_images = False`. Did you mean allow_overlap=true?"
            )

    @property
    @abstractmethod
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Labels of the source's and of the target's classes, in the order of their outputs."""

    @property
    @abstractmethod
    def note(self) -> str:
        """How the target differs from the source, in one sentence."""

    @abstractmethod
    def change(self, split: Split, part: Literal["pool", "test"], seed: int) -> Split:
        """What makes standardized target and test images differ from the source's."""

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Source, target and test; averaging comes before standardizing, and that before the change."""
        source_classes, target_classes = self.classes
        examples, test = read_fashion_mnist(ARCHIVE, folder)
        every, half = torch.arange(len(examples)), len(examples) // 2
        first, second = (every[:half], every[half:]) if self.split_images else (every, every)
        source = of_classes(examples.select(first), ARTICLE, source_classes)
        source = source.select(subset(source, self.source_size, field="source_size", seed=seed))
        return self.splits.build(
            name=self.name,
            tasks=(task_of_classes(ARTICLE, source_classes), task_of_classes(ARTICLE, target_classes)),
            source=averaged(source, self.pool),
            pool=averaged(of_classes(examples.select(second), ARTICLE, target_classes), self.pool),
            test=averaged(of_classes(test, ARTICLE, target_classes), self.pool),
            seed=seed,
            change=self.change,
            notes=(self.note,),
        )

    @property
    def splits(self) -> TransferSplits:
        """How the splits are drawn."""
        return replace(super().splits, allow_overlap=self.allow_overlap)
