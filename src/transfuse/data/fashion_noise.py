"""Transfer from clean Fashion-MNIST to few noisy images of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d

from transfuse.data.dataset import Dataset, require
from transfuse.data.fashion_mnist import ARCHIVE, ARTICLE, read_fashion_mnist, subset
from transfuse.data.noise import CleanToNoisy
from transfuse.types import Problem, Split


@dataclass(frozen=True, kw_only=True)
class FashionNoise(Dataset):
    """Fashion-MNIST, 10 classes clean -> the same classes with Gaussian noise, on other images.

    The source is the first half of the training file, the target's pool the second half, test the test file.

    Attributes:
        source_size: images of the source, for its training and validation, stratified; null: the whole half.
        source_validation_fraction: share of the source that is its validation split, in (0, 1).
        target_size: training examples of the target, balanced; >= 10.
        validation_size: validation examples of the target, stratified; >= 10.
        noise: standard deviation of the noise in units of the standardized pixel, >= 0.
        pool: side of the squares that are averaged to one pixel: 1, 2, 4, 7 or 14; 2 gives 14 x 14.
    """

    source_size: int | None = None
    source_validation_fraction: float = 0.2
    target_size: int = 50
    validation_size: int = 1000
    noise: float = 0.7
    pool: int = 2

    def __post_init__(self) -> None:
        require(self.source_size is None or self.source_size >= 100, "source_size", ">= 100 or null", self.source_size)
        require(self.pool in (1, 2, 4, 7, 14), "pool", "1, 2, 4, 7 or 14", self.pool)
        self._transfer.check(ARTICLE)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Clean source, noisy target and noisy test; the noise comes after averaging and standardizing."""
        examples, test = read_fashion_mnist(ARCHIVE, folder)
        half = len(examples) // 2
        first = examples.select(torch.arange(half))
        second = examples.select(torch.arange(half, len(examples)))
        source = first.select(subset(first, self.source_size, field="source_size", seed=seed))
        return self._transfer.build(
            name=self.name,
            task=ARTICLE,
            source=_pooled(source, self.pool),
            pool=_pooled(second, self.pool),
            test=_pooled(test, self.pool),
            seed=seed,
        )

    @property
    def _transfer(self) -> CleanToNoisy:
        return CleanToNoisy(
            source_validation_fraction=self.source_validation_fraction,
            target_size=self.target_size,
            validation_size=self.validation_size,
            noise=self.noise,
        )


def _pooled(split: Split, side: int) -> Split:
    return replace(split, inputs=avg_pool2d(split.inputs.float(), side))
