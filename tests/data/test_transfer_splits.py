from __future__ import annotations

import pytest
import torch

from transfuse.data.transfer_splits import TransferSplits, of_classes, task_of_classes
from transfuse.types import HyperparameterError, Split, Task

TASK = Task(name="t", kind="classification", outputs=3, classes=("a", "b", "c"))
SPLITS = TransferSplits(source_validation_fraction=0.5, target_size=3, validation_size=3)


def split(first: int, size: int = 30) -> Split:
    """Examples whose ids begin at `first` and whose labels are 0, 1, 2, 0, ..."""
    labels_N = torch.arange(size) % 3
    return Split(inputs=torch.randn(size, 2), targets={"t": labels_N}, ids=torch.arange(first, first + size))


def test_labels_become_places() -> None:
    chosen = of_classes(split(0, 6), TASK, (2, 0))
    assert chosen.ids.tolist() == [0, 2, 3, 5]
    assert chosen.targets["t"].tolist() == [1, 0, 1, 0]
    assert task_of_classes(TASK, (2, 0)) == Task(name="t", kind="classification", outputs=2, classes=("c", "a"))


@pytest.mark.parametrize(
    ("pool", "test", "message"),
    [
        (29, 100, r"No example should be in the source and in the target\. Found 1 in both\..*allow_overlap=true"),
        (100, 20, r"No example of the source should be in the test split\. Found 10\.$"),
        (100, 129, r"No example of the target should be in the test split\. Found 1\.$"),
    ],
)
def test_shared_images_are_refused(pool: int, test: int, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        SPLITS.build(name="x", tasks=(TASK, TASK), source=split(0), pool=split(pool), test=split(test), seed=0)


def test_the_change_meets_the_target_alone() -> None:
    def shifted(part: Split, name: str, seed: int) -> Split:
        return Split(inputs=part.inputs + {"pool": 100, "test": 200}[name], targets=part.targets, ids=part.ids)

    problem = SPLITS.build(
        name="x", tasks=(TASK, TASK), source=split(0), pool=split(30), test=split(60), seed=0, change=shifted
    )
    development = problem.development
    assert development.source is not None
    assert development.source.train.inputs.abs().max() < 10
    assert (development.train.inputs - 100).abs().max() < 10
    assert (development.validation.inputs - 100).abs().max() < 10
    assert (problem.test.inputs - 200).abs().max() < 10
