"""Yeast genes: 103 numbers a gene, 14 functional groups that it may belong to."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from transfuse.data.dataset import Dataset, require_fraction
from transfuse.data.files import PackagedFile
from transfuse.data.scaling import column_scaling
from transfuse.data.splits import make_development, three_way
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.types import Problem, Split, Task

FILE = PackagedFile(
    title="Yeast",
    stem="yeast",
    package="river",
    path="datasets/yeast.csv.gz",
    install="pip install --no-deps river==0.26.1",
    sha256="fd17cb9b53acaaf5e82a9e0795e2667167775915c0e32c1f6fe0fadb0d3bd703",
)
TASKS = tuple(
    Task(name=f"class_{number}", kind="classification", outputs=2, classes=("no", "yes")) for number in range(1, 15)
)
_FEATURES = 103
_NAMES = tuple(task.name for task in TASKS)


@dataclass(frozen=True, kw_only=True)
class Yeast(Dataset):
    """Which of 14 functional groups does a gene belong to? One task a group; inputs (103,), columns standardized.

    Inputs are micro-array expressions and phylogenetic profiles of 2417 genes. Splits are stratified by the rarest
    group (`class_14`, 34 genes), so that each has some of it.

    Reference: Elisseeff & Weston 2001, "A kernel method for multi-labelled classification".

    Attributes:
        test_fraction: share of the genes that is test, in (0, 1).
        validation_fraction: share of the rest that is validation, in (0, 1).
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    test_fraction: float = 0.25
    validation_fraction: float = 1 / 6
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)
        check_settings(self.tasks, _NAMES)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """1511, 302 and 604 genes with the defaults."""
        table = np.loadtxt(io.BytesIO(FILE.read(folder)), delimiter=",", skiprows=1)
        labels_NT = torch.from_numpy(table[:, _FEATURES:]).long()
        examples = Split(
            inputs=torch.from_numpy(table[:, :_FEATURES]),
            targets={task.name: labels_NT[:, index].contiguous() for index, task in enumerate(TASKS)},
            ids=torch.arange(len(table)),
        )
        index = three_way(
            len(examples),
            test_fraction=self.test_fraction,
            validation_fraction=self.validation_fraction,
            labels=examples.targets[TASKS[-1].name],
            classes=TASKS[-1].classes,
            seed=seed,
        )
        parts = [examples.select(part) for part in index]
        scaling = column_scaling(parts[0].inputs)
        train, validation, test = (scaling.apply_to(part) for part in parts)
        tasks = with_settings(TASKS, self.tasks)
        development = make_development(name=self.name, tasks=tasks, train=train, validation=validation)
        return Problem(development=development, test=test)
