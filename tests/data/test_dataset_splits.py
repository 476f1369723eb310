from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from transfuse.data import Arrays, Digits, DigitsNoise, DigitsTasks, FashionMnist, FashionNoise
from transfuse.data.splits import balanced, count, fingerprint, split_off, three_way
from transfuse.types import DataError, Split, Task

TASK = Task(name="t", kind="classification", outputs=3, classes=("a", "b", "c"))
LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)


def make_split() -> Split:
    return Split(
        inputs=torch.arange(12, dtype=torch.float32).reshape(4, 3),
        targets={"t": torch.tensor([0, 1, 2, 0])},
        ids=torch.arange(4),
    )


def test_name_is_the_config_stem() -> None:
    assert [cls().name for cls in (Digits, DigitsTasks, DigitsNoise, FashionMnist, FashionNoise)] == [
        "digits",
        "digits_tasks",
        "digits_noise",
        "fashion_mnist",
        "fashion_noise",
    ]
    assert Arrays(path="a.csv", target="y").name == "arrays"


@pytest.mark.parametrize(("fraction", "total", "expected"), [(0.5, 1797, 899), (1 / 3, 898, 299), (0.3, 1797, 539)])
def test_count_rounds_half_up(fraction: float, total: int, expected: int) -> None:
    assert count(fraction, total) == expected


def test_split_off_keeps_proportions_and_positions() -> None:
    rest, part = split_off(torch.arange(100), 20, labels=LABELS, seed=0, purpose="test")
    assert torch.bincount(LABELS[part]).tolist() == [12, 6, 2]
    assert torch.bincount(LABELS[rest]).tolist() == [48, 24, 8]
    assert torch.equal(torch.cat([rest, part]).sort().values, torch.arange(100))
    assert torch.equal(part, part.sort().values)


def test_split_off_works_on_a_part_of_the_positions() -> None:
    index = torch.arange(0, 100, 2)
    rest, part = split_off(index, 10, labels=LABELS, seed=0, purpose="test")
    assert torch.bincount(LABELS[part]).tolist() == [6, 3, 1]
    assert torch.equal(torch.cat([rest, part]).sort().values, index)


def test_split_off_depends_on_seed_and_purpose() -> None:
    def drawn(seed: int, purpose: str) -> list[int]:
        return split_off(torch.arange(100), 20, labels=None, seed=seed, purpose=purpose)[1].tolist()

    assert drawn(0, "test") == drawn(0, "test")
    assert drawn(0, "test") != drawn(1, "test")
    assert drawn(0, "test") != drawn(0, "validation")


@pytest.mark.parametrize("size", [0, 100, 101])
def test_split_off_refuses_empty_parts(size: int) -> None:
    with pytest.raises(DataError, match=f"^{size} examples for test cannot be split off from 100"):
        split_off(torch.arange(100), size, labels=None, seed=0, purpose="test")


def test_split_off_names_the_class_that_is_too_small() -> None:
    labels = torch.tensor([0] * 10 + [1])
    with pytest.raises(DataError, match="Class rare has 1 example left when test is split off"):
        split_off(torch.arange(11), 3, labels=labels, classes=("common", "rare"), seed=0, purpose="test")


@pytest.mark.parametrize("size", [2, 98])
def test_split_off_refuses_fewer_examples_than_classes(size: int) -> None:
    with pytest.raises(DataError, match="leaves fewer examples than the 3 classes"):
        split_off(torch.arange(100), size, labels=LABELS, seed=0, purpose="test")


def test_three_way_is_a_partition() -> None:
    parts = three_way(100, test_fraction=0.2, validation_fraction=0.25, labels=LABELS, seed=3)
    assert [len(part) for part in parts] == [60, 20, 20]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(100))


def test_balanced_differs_by_at_most_one_and_is_nested() -> None:
    def draw(size: int) -> torch.Tensor:
        return balanced(torch.arange(100), size, labels=LABELS, classes=TASK.classes, seed=0, purpose="train")

    for size in (3, 10, 11, 30):
        counts = torch.bincount(LABELS[draw(size)], minlength=3)
        assert counts.sum() == size
        assert counts.max() - counts.min() <= 1
    assert set(draw(10).tolist()) < set(draw(11).tolist()) < set(draw(30).tolist())


def test_balanced_names_the_class_that_is_too_small() -> None:
    with pytest.raises(DataError, match=r"33 balanced examples for train need 11 of class c\. Found 10\."):
        balanced(torch.arange(100), 33, labels=LABELS, classes=TASK.classes, seed=0, purpose="train")


def test_fingerprint_is_of_the_content() -> None:
    first, copied = make_split(), make_split()
    assert fingerprint((TASK,), first) == fingerprint((TASK,), copied)
    assert len(fingerprint((TASK,), first)) == 64
    # a tensor that is not contiguous has the fingerprint of its values
    strided = replace(first, inputs=first.inputs.T.contiguous().T)
    assert not strided.inputs.is_contiguous()
    assert fingerprint((TASK,), strided) == fingerprint((TASK,), first)


def test_fingerprint_sees_every_change() -> None:
    split = make_split()
    bit = split.inputs.clone()
    bit[3, 2] = torch.nextafter(bit[3, 2], torch.tensor(100.0))
    changed = [
        fingerprint((TASK,), split),
        fingerprint((replace(TASK, classes=("a", "b", "d")),), split),
        fingerprint((replace(TASK, loss_scale=2.0),), split),
        fingerprint((TASK,), replace(split, inputs=bit)),
        fingerprint((TASK,), replace(split, inputs=split.inputs.reshape(4, 1, 3))),
        fingerprint((TASK,), replace(split, inputs=split.inputs.int())),
        fingerprint((TASK,), replace(split, ids=split.ids + 1)),
        fingerprint((TASK,), replace(split, targets={"t": torch.tensor([0, 1, 2, 1])})),
        fingerprint((TASK,), split, split),
        fingerprint((TASK,), split.select(torch.tensor([1, 0, 2, 3]))),
    ]
    assert len(set(changed)) == len(changed)
