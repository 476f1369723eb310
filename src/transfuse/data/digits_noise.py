"""Transfer from clean digits to few noisy digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from transfuse.data.dataset import require, require_fraction
from transfuse.data.digits import DIGIT, read_digits
from transfuse.data.noise import CleanToNoisy
from transfuse.data.splits import count, split_off
from transfuse.data.transfer_splits import FewOfTarget
from transfuse.types import Problem


@dataclass(frozen=True, kw_only=True)
class DigitsNoise(FewOfTarget):
    """Digits, 10 classes clean -> the same classes with Gaussian noise, on other images.

    With the defaults 719 images are source, 539 the target's pool (of which 150 are used) and 539 test.

    Attributes:
        source_fraction: share of the images that is the source problem, in (0, 1).
        test_fraction: share that is test, in (0, 1); what is left is the target's pool.
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced; >= 10.
        validation_size: validation examples of the target, stratified; >= 10.
        noise: standard deviation of the noise in units of the standardized pixel, >= 0.
    """

    source_fraction: float = 0.4
    test_fraction: float = 0.3
    noise: float = 0.7

    def __post_init__(self) -> None:
        require_fraction("source_fraction", self.source_fraction)
        require_fraction("test_fraction", self.test_fraction)
        both = self.source_fraction + self.test_fraction
        require(both < 1, "source_fraction + test_fraction", "< 1", both)
        self.splits.check(DIGIT)
        assert self._change  # noise out of its range is refused there

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Clean source, noisy target and noisy test, stratified and disjoint."""
        examples = read_digits()
        labels = examples.targets[DIGIT.name]
        total = len(examples)
        rest, test = split_off(
            torch.arange(total),
            count(self.test_fraction, total),
            labels=labels,
            classes=DIGIT.classes,
            seed=seed,
            purpose="test",
        )
        pool, source = split_off(
            rest,
            count(self.source_fraction, total),
            labels=labels,
            classes=DIGIT.classes,
            seed=seed,
            purpose="source",
        )
        return self.splits.build(
            name=self.name,
            tasks=(DIGIT, DIGIT),
            source=examples.select(source),
            pool=examples.select(pool),
            test=examples.select(test),
            seed=seed,
            change=self._change,
            notes=(self._change.note,),
        )

    @property
    def _change(self) -> CleanToNoisy:
        return CleanToNoisy(noise=self.noise)
