"""Three tasks on the digits, one of them linear: which digit, even or odd, and a noisy sum of pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require, require_fraction
from transfuse.data.digits import DIGIT, read_digits, split_digits
from transfuse.data.digits_tasks import PARITY
from transfuse.data.splits import make_development
from transfuse.data.targets import with_statistics
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.randomness import make_generator
from transfuse.types import Problem, Split, Task

_LINEAR = Task(name="linear", kind="regression", outputs=1, classes=("linear",))
_NAMES = (DIGIT.name, PARITY.name, _LINEAR.name)


@dataclass(frozen=True, kw_only=True)
class DigitsLinear(Dataset):
    """Multi-task digits whose third task has nothing to do with digits: it tells balancers apart.

    Tasks: `digit` (10 classes), `parity` (even, odd), `linear` (regression): `y = <a, x> + noise * e`, x the pixels, a
    one fixed direction drawn from N(0, I) and scaled so that `<a, x>` has mean 0 and variance 1 over all images, e of
    N(0, 1). The direction and e belong to the data: they are the same for every seed.

    With `tasks.linear.loss_scale=100` the plain sum follows the linear task and loses the digits; rules whose direction
    does not depend on the losses' scales keep them.

    Attributes:
        noise: standard deviation of what cannot be predicted, >= 0.
        test_fraction: share of the images that is test, in (0, 1).
        validation_fraction: share of the rest that is validation, in (0, 1).
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    noise: float = 0.4
    test_fraction: float = 1 / 3
    validation_fraction: float = 1 / 6
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", ">= 0", self.noise)
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)
        check_settings(self.tasks, _NAMES)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """998, 200 and 599 images with the defaults, stratified by digit, with three targets each."""
        values_N1 = _linear(read_digits().inputs, self.noise)
        splits = split_digits(self.test_fraction, self.validation_fraction, seed)
        train, validation, test = (_with_tasks(split, values_N1) for split in splits)
        linear = with_statistics(_LINEAR, train.targets[_LINEAR.name])
        tasks = with_settings((DIGIT, PARITY, linear), self.tasks)
        development = make_development(name=self.name, tasks=tasks, train=train, validation=validation)
        return Problem(development=development, test=test)


def _linear(images: Tensor, noise: float) -> Tensor:
    pixels_NF = images.double().flatten(1)
    direction_F = torch.randn(pixels_NF.shape[1], generator=make_generator(0, "digits_linear/a"), dtype=torch.float64)
    values_N = (pixels_NF - pixels_NF.mean(0)) @ direction_F
    values_N = values_N / values_N.std(correction=0)
    noise_N = torch.randn(len(values_N), generator=make_generator(0, "digits_linear/e"), dtype=torch.float64)
    return (values_N + noise * noise_N).float().unsqueeze(1)


def _with_tasks(split: Split, values_N1: Tensor) -> Split:
    labels_N = split.targets[DIGIT.name]
    targets = {DIGIT.name: labels_N, PARITY.name: labels_N % 2, _LINEAR.name: values_N1[split.ids]}
    return replace(split, targets=targets)
