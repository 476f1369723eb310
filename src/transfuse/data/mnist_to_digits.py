"""Transfer from MNIST to few of scikit-learn's digits: the same labels, images of another origin and resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from transfuse.data.dataset import require, require_fraction
from transfuse.data.digits import DIGIT, read_digits
from transfuse.data.mnist import read_mnist
from transfuse.data.resizing import averaged, resized
from transfuse.data.splits import count, split_off
from transfuse.data.transfer_splits import FewOfTarget
from transfuse.types import Problem

_BRIGHTEST = 255 / 16  # a digit's pixels are in 0..16, MNIST's in 0..255


@dataclass(frozen=True, kw_only=True)
class MnistToDigits(FewOfTarget):
    """5,000 digits of MNIST -> few of scikit-learn's, resized: frozen features are strongly negative.

    Attributes:
        source_validation_fraction: share of MNIST that is the source's validation split, in (0, 1).
        test_fraction: share of the digits that is test, in (0, 1); the rest is the target's pool.
        target_size: training examples of the target, balanced; >= 10.
        validation_size: validation examples of the target, stratified; >= 10.
        pool: side of MNIST's squares that are averaged to one pixel: 1, 2, 4, 7 or 14; 2 gives 14 x 14. The digits get
            that resolution.
    """

    test_fraction: float = 0.5
    pool: int = 2

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require(self.pool in (1, 2, 4, 7, 14), "pool", "1, 2, 4, 7 or 14", self.pool)
        self.splits.check(DIGIT)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """All of MNIST as the source; the digits as the target's pool and test."""
        source = averaged(read_mnist(folder), self.pool)
        digits = read_digits()
        # ids go on after the digits'
        source = replace(source, ids=source.ids + len(digits))
        target = resized(replace(digits, inputs=digits.inputs * _BRIGHTEST), source.inputs.shape[-1])
        rest, test = split_off(
            torch.arange(len(target)),
            count(self.test_fraction, len(target)),
            labels=target.targets[DIGIT.name],
            classes=DIGIT.classes,
            seed=seed,
            purpose="test",
        )
        return self.splits.build(
            name=self.name,
            tasks=(DIGIT, DIGIT),
            source=source,
            pool=target.select(rest),
            test=target.select(test),
            seed=seed,
        )
