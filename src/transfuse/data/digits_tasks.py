"""Three tasks on the digits: which digit, even or odd, and its value."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from transfuse.data.dataset import Dataset, require_fraction
from transfuse.data.digits import DIGIT, split_digits
from transfuse.data.splits import make_development
from transfuse.data.targets import with_statistics
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.types import Problem, Split, Task

PARITY = Task(name="parity", kind="classification", outputs=2, classes=("even", "odd"))
_VALUE = Task(name="value", kind="regression", outputs=1, classes=("value",))
_NAMES = (DIGIT.name, PARITY.name, _VALUE.name)


@dataclass(frozen=True, kw_only=True)
class DigitsTasks(Dataset):
    """Multi-task digits on the images and splits of `digits`.

    Tasks: `digit` (10 classes), `parity` (even, odd), `value` (regression: the digit as a number, in its own units).

    Attributes:
        test_fraction: share of the images that is test, in (0, 1).
        validation_fraction: share of the rest that is validation, in (0, 1).
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    test_fraction: float = 0.5
    validation_fraction: float = 1 / 3
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)
        check_settings(self.tasks, _NAMES)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """The splits of `digits` with three targets an image."""
        splits = split_digits(self.test_fraction, self.validation_fraction, seed)
        train, validation, test = (_with_tasks(split) for split in splits)
        value = with_statistics(_VALUE, train.targets[_VALUE.name])
        tasks = with_settings((DIGIT, PARITY, value), self.tasks)
        development = make_development(name=self.name, tasks=tasks, train=train, validation=validation)
        return Problem(development=development, test=test)


def _with_tasks(split: Split) -> Split:
    labels_N = split.targets[DIGIT.name]
    targets = {DIGIT.name: labels_N, PARITY.name: labels_N % 2, _VALUE.name: labels_N.float().unsqueeze(1)}
    return replace(split, targets=targets)
