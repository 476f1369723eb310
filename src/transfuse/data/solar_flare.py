"""Solar flares: how many of each size an active region gives within 24 hours; regression with several targets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require_fraction
from transfuse.data.files import PackagedFile
from transfuse.data.scaling import column_scaling
from transfuse.data.splits import make_development, three_way
from transfuse.data.targets import with_statistics
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.types import Problem, Split, Task

FILE = PackagedFile(
    title="Solar Flare",
    stem="solar-flare",
    package="river",
    path="datasets/solar-flare.csv.zip",
    install="pip install --no-deps river==0.26.1",
    sha256="7ae467f9d903b682389150c619417772e7a9b25a8810139a62236d68e736367b",
)
COLUMNS: Mapping[str, str] = {"common": "c-class-flares", "moderate": "m-class-flares", "severe": "x-class-flares"}
_LETTERS = ("zurich-class", "largest-spot-size", "spot-distribution")
_NUMBERS = (
    "activity",
    "evolution",
    "previous-24h-flare-activity",
    "hist-complex",
    "hist-complex-this-pass",
    "area",
    "largest-spot-area",
)
_NAMES = tuple(COLUMNS)


@dataclass(frozen=True, kw_only=True)
class SolarFlare(Dataset):
    """How many flares of class C, M and X will there be? One regression task a class, in flares.

    Inputs are the letters of the region one-hot and seven numbers, all columns standardized. Of 1066 regions 865 give
    no flare and 5 one of class X: splits are stratified by the largest class, and R^2 is low for any model.

    Reference: Bradshaw (1989), Solar Flare, UCI repository, doi:10.24432/C5530G.

    Attributes:
        test_fraction: share of the regions that is test, in (0, 1).
        validation_fraction: share of the rest that is validation, in (0, 1).
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    test_fraction: float = 0.3
    validation_fraction: float = 0.2
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)
        check_settings(self.tasks, _NAMES)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """597, 149 and 320 regions with the defaults."""
        rows = list(csv.DictReader(io.StringIO(FILE.read(folder).decode())))
        examples = Split(
            inputs=_features(rows),
            targets={name: torch.tensor([[float(row[column])] for row in rows]) for name, column in COLUMNS.items()},
            ids=torch.arange(len(rows)),
        )
        index = three_way(
            len(examples),
            test_fraction=self.test_fraction,
            validation_fraction=self.validation_fraction,
            labels=_largest(examples),
            classes=("none", *COLUMNS),
            seed=seed,
        )
        parts = [examples.select(part) for part in index]
        scaling = column_scaling(parts[0].inputs)
        train, validation, test = (scaling.apply_to(part) for part in parts)
        counts = (Task(name=name, kind="regression", outputs=1, classes=(name,)) for name in COLUMNS)
        tasks = with_settings([with_statistics(task, train.targets[task.name]) for task in counts], self.tasks)
        development = make_development(name=self.name, tasks=tasks, train=train, validation=validation)
        return Problem(development=development, test=test)


def _features(rows: Sequence[Mapping[str, str]]) -> Tensor:
    columns = [[float(row[name]) for row in rows] for name in _NUMBERS]
    for name in _LETTERS:
        letters = sorted({row[name] for row in rows})
        columns += [[float(row[name] == letter) for row in rows] for letter in letters]
    return torch.tensor(columns, dtype=torch.float64).T


def _largest(examples: Split) -> Tensor:
    """0 without flares, else the number of the largest class."""
    labels_N = torch.zeros(len(examples), dtype=torch.long)
    for number, name in enumerate(COLUMNS, start=1):
        labels_N[examples.targets[name].squeeze(1) > 0] = number
    return labels_N
