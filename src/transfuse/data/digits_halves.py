"""Transfer between the halves of the digits, where frozen features harm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from transfuse.data.dataset import require, require_fraction
from transfuse.data.digits import DIGIT, read_digits
from transfuse.data.resizing import resized
from transfuse.data.splits import count, split_off
from transfuse.data.transfer_splits import FewOfTarget, of_classes, require_classes, task_of_classes
from transfuse.types import HyperparameterError, Problem


@dataclass(frozen=True, kw_only=True)
class DigitsHalves(FewOfTarget):
    """Digits 0-4 -> 5-9: frozen features are strongly negative, fine-tuning is slightly so.

    Attributes:
        source: labels of the source's classes, at least two in 0..9.
        target: labels of the target's classes, none of them the source's, in the order of its outputs.
        test_fraction: share of the images that is test, of which the target's classes are used, in (0, 1).
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced; at least one a class.
        validation_size: validation examples of the target, stratified; at least one a class.
        side: pixels of height and width, >= 2; 8 leaves the images as they are.
    """

    source: tuple[int, ...] = (0, 1, 2, 3, 4)
    target: tuple[int, ...] = (5, 6, 7, 8, 9)
    test_fraction: float = 0.5
    source_validation_fraction: float = 1 / 3
    side: int = 14

    def __post_init__(self) -> None:
        require_classes("source", self.source, DIGIT)
        require_classes("target", self.target, DIGIT)
        if set(self.source) & set(self.target):
            raise HyperparameterError(
                f"`target` should have no class of `source`, whose images it would share. "
                f"Found `source = {list(self.source)}`, `target = {list(self.target)}`."
            )
        require_fraction("test_fraction", self.test_fraction)
        require(self.side >= 2, "side", ">= 2", self.side)
        self.splits.check(task_of_classes(DIGIT, self.target))

    def build(self, *, seed: int, folder: Path) -> Problem:
        """The source's digits of what is not test, and the target's digits of both."""
        examples = read_digits()
        labels, total = examples.targets[DIGIT.name], len(examples)
        rest, test = split_off(
            torch.arange(total),
            count(self.test_fraction, total),
            labels=labels,
            classes=DIGIT.classes,
            seed=seed,
            purpose="test",
        )
        images = resized(examples, self.side)
        return self.splits.build(
            name=self.name,
            tasks=(task_of_classes(DIGIT, self.source), task_of_classes(DIGIT, self.target)),
            source=of_classes(images.select(rest), DIGIT, self.source),
            pool=of_classes(images.select(rest), DIGIT, self.target),
            test=of_classes(images.select(test), DIGIT, self.target),
            seed=seed,
        )
