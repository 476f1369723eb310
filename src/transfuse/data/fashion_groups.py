"""Fashion-MNIST as three tasks: each group of articles has its own head, and its own images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from transfuse.data.dataset import Dataset
from transfuse.data.fashion_mnist import ARTICLE, FashionMnist
from transfuse.data.splits import make_development
from transfuse.data.task_settings import TaskSettings, check_settings, plain, with_settings
from transfuse.types import Problem, Split, Task

# Names of articles by group; a class's number within its task is its position here.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "upper": ("T-shirt/top", "Pullover", "Coat", "Shirt"),
    "shoes": ("Sandal", "Sneaker", "Ankle boot"),
    "other": ("Trouser", "Dress", "Bag"),
}
TASKS = tuple(
    Task(name=name, kind="classification", outputs=len(classes), classes=classes) for name, classes in GROUPS.items()
)
_NAMES = tuple(GROUPS)


@dataclass(frozen=True, kw_only=True)
class FashionGroups(Dataset):
    """Which article of its group is it? Inputs (1, 28, 28); the splits of `fashion_mnist`.

    Tasks: `upper` (T-shirt/top, Pullover, Coat, Shirt), `shoes` (Sandal, Sneaker, Ankle boot), `other` (Trouser, Dress,
    Bag). An image is labelled for the task of its group alone; for the others its label is -1.

    Attributes:
        train_size: images taken from the training file, for training and validation together, stratified; null: all.
        validation_fraction: share of them that is validation, in (0, 1).
        tasks: task -> `loss_scale`, the factor on its training loss; 1 where none is set.
    """

    train_size: int | None = None
    validation_fraction: float = 0.2
    tasks: TaskSettings = field(default_factory=partial(plain, _NAMES))

    def __post_init__(self) -> None:
        assert self._articles  # values out of range are refused there
        check_settings(self.tasks, _NAMES)

    @property
    def _articles(self) -> FashionMnist:
        return FashionMnist(train_size=self.train_size, validation_fraction=self.validation_fraction)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """The splits of `fashion_mnist`, labelled by group."""
        problem = self._articles.build(seed=seed, folder=folder)
        whole = problem.development
        development = make_development(
            name=self.name,
            tasks=with_settings(TASKS, self.tasks),
            train=_grouped(whole.train),
            validation=_grouped(whole.validation),
        )
        return replace(problem, development=development, test=_grouped(problem.test))


def _grouped(split: Split) -> Split:
    articles_N = split.targets[ARTICLE.name]
    targets = {}
    for name, classes in GROUPS.items():
        position = torch.full((ARTICLE.outputs,), -1)
        for index, article in enumerate(classes):
            position[ARTICLE.classes.index(article)] = index
        targets[name] = position[articles_N]
    return replace(split, targets=targets)
