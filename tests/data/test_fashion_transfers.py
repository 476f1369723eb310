"""The transfer problems on Fashion-MNIST beside `fashion_noise`, on tiny files of the same layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transfuse.data import FashionHalves, FashionLookalike, FashionNoise, FashionRotated
from transfuse.data.fashion_mnist import ARCHIVE, ARTICLE
from transfuse.types import Development, HyperparameterError, Problem

SMALL = {"target_size": 20, "validation_size": 20}
PROBLEMS = (FashionHalves, FashionLookalike, FashionNoise, FashionRotated)


def source_of(problem: Problem) -> Development:
    assert problem.development.source is not None
    return problem.development.source


def parts_of(problem: Problem) -> list[Any]:
    source, target = source_of(problem), problem.development
    return [source.train, source.validation, target.train, target.validation, problem.test]


def standardized(tiny: Any, problem: Problem) -> np.ndarray:
    """All images averaged and standardized by the source's training images, computed with NumPy; by id."""
    images = np.concatenate([tiny.images, tiny.test_images])
    averaged = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    train = averaged[source_of(problem).train.ids.numpy()]
    return (averaged - train.mean()) / train.std()


@pytest.mark.parametrize("kind", PROBLEMS)
def test_no_image_is_shared_and_smaller_targets_are_subsets(kind: Any, tiny_fashion: Any) -> None:
    problem = kind(**SMALL).build(seed=0, folder=tiny_fashion.folder)
    parts = parts_of(problem)
    assert len(torch.cat([part.ids for part in parts]).unique()) == sum(map(len, parts))
    assert max(parts[0].ids.max(), parts[1].ids.max()) < 200 <= min(parts[2].ids.min(), parts[3].ids.min())
    assert parts[4].ids.min() >= 400
    assert "No example is in two splits." in problem.notes
    smaller = kind(target_size=10, validation_size=20).build(seed=0, folder=tiny_fashion.folder)
    few, many = smaller.development.train, problem.development.train
    rows = [many.ids.tolist().index(each) for each in few.ids.tolist()]
    assert torch.equal(few.inputs, many.inputs[rows])
    assert torch.equal(smaller.development.validation.inputs, problem.development.validation.inputs)
    assert source_of(smaller).fingerprint == source_of(problem).fingerprint


@pytest.mark.parametrize("kind", [FashionHalves, FashionLookalike])
def test_source_and_target_have_classes_of_their_own(kind: Any, tiny_fashion: Any) -> None:
    settings = kind(**SMALL)
    problem = settings.build(seed=0, folder=tiny_fashion.folder)
    labels = np.concatenate([tiny_fashion.labels, tiny_fashion.test_labels])
    for classes, task, parts in (
        (settings.source, source_of(problem).tasks[0], parts_of(problem)[:2]),
        (settings.target, problem.development.tasks[0], parts_of(problem)[2:]),
    ):
        assert (task.outputs, task.classes) == (5, tuple(ARTICLE.classes[label] for label in classes))
        for part in parts:
            assert [classes[place] for place in part.targets["article"].tolist()] == labels[part.ids.numpy()].tolist()
    assert torch.bincount(problem.development.train.targets["article"]).tolist() == [4] * 5
    assert [len(part) for part in parts_of(problem)] == [80, 20, 20, 20, 30]
    for part in parts_of(problem):
        clean = standardized(tiny_fashion, problem)[part.ids.numpy()]
        np.testing.assert_allclose(part.inputs[:, 0], clean, rtol=1e-4, atol=1e-4)


def test_halves_and_lookalikes_are_the_published_classes() -> None:
    assert FashionHalves().classes == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    assert [ARTICLE.classes[label] for label in FashionLookalike().target] == [
        "Shirt", "Coat", "Trouser", "Sneaker", "Ankle boot",
    ]  # fmt: skip


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_target_images_are_turned_to_the_left(degrees: int, turns: int, tiny_fashion: Any) -> None:
    problem = FashionRotated(degrees=degrees, **SMALL).build(seed=0, folder=tiny_fashion.folder)
    clean = standardized(tiny_fashion, problem)
    for index, part in enumerate(parts_of(problem)):
        upright = clean[part.ids.numpy()]
        expected = upright if index < 2 else np.rot90(upright, turns, axes=(1, 2))
        np.testing.assert_allclose(part.inputs[:, 0], expected, rtol=1e-4, atol=1e-4)
    assert f"turned by {degrees} degrees" in problem.notes[0]


def test_images_that_are_not_split(tiny_fashion: Any) -> None:
    whole = FashionHalves(split_images=False, **SMALL).build(seed=0, folder=tiny_fashion.folder)
    assert len(source_of(whole).train) + len(source_of(whole).validation) == 200
    assert "No example is in two splits." in whole.notes  # other classes are other images
    message = r"`split_images` should be true where .* in common\..* Did you mean allow_overlap=true\?"
    with pytest.raises(HyperparameterError, match=message):
        FashionRotated(split_images=False)
    shared = FashionRotated(split_images=False, allow_overlap=True, **SMALL).build(seed=0, folder=tiny_fashion.folder)
    assert "400 examples are in the source and in the target's pool, which flatters transfer." in shared.notes


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (FashionRotated, {"degrees": 45}, r"^`degrees` should be 90, 180 or 270\. Found `degrees = 45`\.$"),
        (FashionRotated, {"target_size": 9}, r"`target_size` should be >= 10"),
        (FashionHalves, {"target_size": 4}, r"`target_size` should be >= 5 \(one image a class\)"),
        (FashionHalves, {"source": (0,)}, r"^`source` should be at least two different numbers in 0\.\.9\. Found"),
        (FashionHalves, {"target": (5, 5)}, r"^`target` should be at least two different numbers in 0\.\.9\. Found"),
        (FashionLookalike, {"target": (5, 10)}, r"^`target` should be at least two different numbers in 0\.\.9\."),
        (FashionHalves, {"target": (0, 9), "split_images": False}, "`split_images` should be true where"),
        (FashionHalves, {"pool": 3}, "`pool` should be 1, 2, 4, 7 or 14"),
    ],
)
def test_out_of_range(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        kind(**fields)


@pytest.mark.skipif(
    not all((ARCHIVE.system / name).is_file() for name in ARCHIVE.sha256),
    reason=f"Fashion-MNIST is not in {ARCHIVE.system}; `{ARCHIVE.install}` puts it there",
)
def test_real_images_of_two_halves(tmp_path: Path) -> None:
    problem = FashionHalves(target_size=1000).build(seed=0, folder=tmp_path)
    source, target = source_of(problem), problem.development
    assert len(source.train) + len(source.validation) == 14926  # of classes 0-4 in the first 30,000
    assert [len(target.train), len(target.validation), len(problem.test)] == [1000, 1000, 5000]
    assert torch.bincount(target.train.targets["article"]).tolist() == [200] * 5
