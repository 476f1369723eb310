from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transfuse.data import FashionMnist
from transfuse.data.fashion_mnist import ARCHIVE, ARTICLE, read_fashion_mnist, read_idx
from transfuse.types import DataError, HyperparameterError

CUBE = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 3, 4) + bytes(range(24))


def test_idx_is_read_row_by_row() -> None:
    np.testing.assert_array_equal(read_idx(CUBE, dimensions=3), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08\x02" + CUBE[4:], r"with 3 dimension\(s\): 00000802"),
        (b"\0\0\x09\x03" + CUBE[4:], "Not an idx file of unsigned bytes"),
        (CUBE[:15], "Not an idx file"),
        (b"", "Not an idx file"),
        (CUBE[:-1], r"shape \(2, 3, 4\) holds 23 values"),
        (CUBE + b"\0", r"shape \(2, 3, 4\) holds 25 values"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_idx(content, dimensions=3)


def test_images_and_labels_must_fit(tiny_fashion: Any) -> None:
    own = tiny_fashion.folder / "fashion-mnist"
    test_labels = own / "t10k-labels-idx1-ubyte.gz"
    test_labels.replace(own / "train-labels-idx1-ubyte.gz")
    expected = tiny_fashion.archive.sha256
    archive = replace(
        tiny_fashion.archive,
        sha256=expected | {"train-labels-idx1-ubyte.gz": expected["t10k-labels-idx1-ubyte.gz"]},
    )
    with pytest.raises(DataError, match="Fashion-MNIST: 400 images and 60 labels in train"):
        read_fashion_mnist(archive, tiny_fashion.folder)


def test_the_test_file_is_the_test_split(tiny_fashion: Any) -> None:
    problem = FashionMnist().build(seed=0, folder=tiny_fashion.folder)
    train, validation, test = problem.development.train, problem.development.validation, problem.test
    assert [len(part) for part in (train, validation, test)] == [320, 80, 60]
    assert problem.development.input_shape == (1, 28, 28)
    assert problem.development.kind == "single_task"
    assert test.ids.tolist() == list(range(400, 460))
    assert torch.equal(torch.cat([train.ids, validation.ids]).sort().values, torch.arange(400))
    assert torch.bincount(validation.targets["article"]).tolist() == [8] * 10
    np.testing.assert_array_equal(test.targets["article"], tiny_fashion.test_labels)
    np.testing.assert_array_equal(train.targets["article"], tiny_fashion.labels[train.ids.numpy()])


def test_scaled_by_training_pixels(tiny_fashion: Any) -> None:
    problem = FashionMnist().build(seed=0, folder=tiny_fashion.folder)
    train, validation = problem.development.train, problem.development.validation
    pixels = tiny_fashion.images[train.ids.numpy()].astype(np.float64)
    for part, images in (
        (train, pixels),
        (validation, tiny_fashion.images[validation.ids.numpy()]),
        (problem.test, tiny_fashion.test_images),
    ):
        expected = (images - pixels.mean()) / pixels.std()
        np.testing.assert_allclose(part.inputs[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_a_stratified_subset(tiny_fashion: Any) -> None:
    config = FashionMnist(train_size=100, validation_fraction=0.3)
    development = config.build(seed=0, folder=tiny_fashion.folder).development
    assert [len(development.train), len(development.validation)] == [70, 30]
    assert torch.bincount(development.train.targets["article"]).tolist() == [7] * 10
    assert development.fingerprint == config.build(seed=0, folder=tiny_fashion.folder).development.fingerprint
    assert development.fingerprint != config.build(seed=1, folder=tiny_fashion.folder).development.fingerprint
    with pytest.raises(DataError, match=r"`train_size` should be at most 400, the images there are\. Found 401"):
        FashionMnist(train_size=401).build(seed=0, folder=tiny_fashion.folder)


def test_a_damaged_file_is_named(tiny_fashion: Any) -> None:
    path = tiny_fashion.folder / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz does not hold the Fashion-MNIST"):
        FashionMnist().build(seed=0, folder=tiny_fashion.folder)


def test_nowhere_to_be_found(tiny_fashion: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Install it with `apt-get install dataset-fashion-mnist`, or put train-images"):
        FashionMnist().build(seed=0, folder=tmp_path / "empty")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_size": 99}, r"^`train_size` should be >= 100 or null\. Found `train_size = 99`\.$"),
        ({"validation_fraction": 0.0}, r"`validation_fraction` should be in \(0, 1\)"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        FashionMnist(**fields)


@pytest.mark.skipif(
    not all((ARCHIVE.system / name).is_file() for name in ARCHIVE.sha256),
    reason=f"Fashion-MNIST is not in {ARCHIVE.system}; `{ARCHIVE.install}` puts it there",
)
def test_real_files(tmp_path: Path) -> None:
    problem = FashionMnist(train_size=1000).build(seed=0, folder=tmp_path)
    assert [len(problem.development.train), len(problem.development.validation), len(problem.test)] == [800, 200, 10000]
    assert torch.bincount(problem.test.targets["article"]).tolist() == [1000] * 10
    # the first test image is an ankle boot, the second a pullover
    assert [ARTICLE.classes[label] for label in problem.test.targets["article"][:2]] == ["Ankle boot", "Pullover"]
    assert list(tmp_path.iterdir()) == []
