"""Three tasks on the digits: which digit, even or odd, and its value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transfuse.data.dataset import Dataset, require_fraction
from transfuse.data.digits import DIGIT, split_digits
from transfuse.data.splits import make_development
from transfuse.types import Problem, Split, Task

PARITY = Task(name="parity", kind="classification", outputs=2, classes=("even", "odd"))


@dataclass(frozen=True, kw_only=True)
class DigitsTasks(Dataset):
    """Multi-task digits on the images and splits of `digits`.

    Tasks: `digit` (10 classes), `parity` (even, odd), `value` (regression: the digit as a number, in its own units).

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
        """The splits of `digits` with three targets an image."""
        splits = split_digits(self.test_fraction, self.validation_fraction, seed)
        train, validation, test = (_with_tasks(split) for split in splits)
        values_N = train.targets["value"].double()
        value = Task(
            name="value",
            kind="regression",
            outputs=1,
            classes=("value",),
            location=(values_N.mean().item(),),
            scale=(values_N.std(correction=0).item(),),
        )
        development = make_development(name=self.name, tasks=(DIGIT, PARITY, value), train=train, validation=validation)
        return Problem(development=development, test=test)


def _with_tasks(split: Split) -> Split:
    labels_N = split.targets[DIGIT.name]
    targets = {DIGIT.name: labels_N, PARITY.name: labels_N % 2, "value": labels_N.float().unsqueeze(1)}
    return replace(split, targets=targets)
