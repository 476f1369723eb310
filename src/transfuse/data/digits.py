"""Handwritten digits, 1797 images of 8 x 8 pixels in 10 classes; they come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from transfuse.data.dataset import Dataset, require_fraction
from transfuse.data.scaling import pixel_scaling
from transfuse.data.splits import make_development, three_way
from transfuse.types import Problem, Split, Task

DIGIT = Task(name="digit", kind="classification", outputs=10, classes=tuple("0123456789"))


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """Which digit is it? Inputs (1, 8, 8), standardized by one mean and deviation of the training pixels.

    Reference: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository (1998), test part.

    Attributes:
        test_fraction: share of the images that is test, in (0, 1).
        validation_fraction: share of the rest that is validation, in (0, 1).
    """

    test_fraction: float = 0.5
    validation_fraction: float = 1 / 3

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Stratified train, validation and test splits (599, 299 and 899 images with the defaults)."""
        train, validation, test = split_digits(self.test_fraction, self.validation_fraction, seed)
        development = make_development(name=self.name, tasks=(DIGIT,), train=train, validation=validation)
        return Problem(development=development, test=test)


@cache  # 1 MB that takes scikit-learn 18 ms to read, which each job of a sweep would pay
def read_digits() -> Split:
    """All images in scikit-learn's order: inputs (1797, 1, 8, 8) float64 in 0..16, not scaled; never change them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels_N = torch.from_numpy(bunch.target).long()
    images_NCHW = torch.from_numpy(bunch.images).unsqueeze(1)
    return Split(inputs=images_NCHW, targets={DIGIT.name: labels_N}, ids=torch.arange(len(labels_N)))


def split_digits(test_fraction: float, validation_fraction: float, seed: int) -> tuple[Split, Split, Split]:
    """Train, validation and test, stratified by digit and scaled by training statistics."""
    examples = read_digits()
    index = three_way(
        len(examples),
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        labels=examples.targets[DIGIT.name],
        classes=DIGIT.classes,
        seed=seed,
    )
    train, validation, test = (examples.select(part) for part in index)
    scaling = pixel_scaling(train.inputs)
    return scaling.apply_to(train), scaling.apply_to(validation), scaling.apply_to(test)
