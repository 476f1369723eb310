"""Data that come with Python packages: small files of the same layout stand for the real ones."""

from __future__ import annotations

import gzip
import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from transfuse.data import MultiFashion, SolarFlare, Yeast, mnist, solar_flare, yeast
from transfuse.data.files import PackagedFile
from transfuse.types import DataError, HyperparameterError


def packed(file: PackagedFile, content: bytes, folder: Path) -> PackagedFile:
    """The file in the data folder, in no package, with the check sum of this content."""
    path = folder / file.stem / Path(file.path).name
    path.parent.mkdir(parents=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("content.csv", content)
    return replace(file, package="transfuse_no_such_package", sha256=hashlib.sha256(content).hexdigest())


def genes(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (count, 14))
    labels[:, 13] = np.arange(count) % 5 == 0
    return random.normal(size=(count, 103)), labels


def test_yeast_has_a_task_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = genes()
    header = ",".join([f"Att{i}" for i in range(103)] + [f"Class{i}" for i in range(14)])
    rows = [",".join([*map(repr, map(float, x)), *map(str, y)]) for x, y in zip(features, labels, strict=True)]
    monkeypatch.setattr(yeast, "FILE", packed(yeast.FILE, "\n".join([header, *rows]).encode(), tmp_path))
    problem = Yeast().build(seed=1, folder=tmp_path)
    development = problem.development
    assert [task.name for task in development.tasks] == [f"class_{number}" for number in range(1, 15)]
    assert {task.kind for task in development.tasks} == {"classification"}
    train = development.train
    mean, std = features[train.ids].mean(0), features[train.ids].std(0)
    for split in (train, development.validation, problem.test):
        ids = split.ids.numpy()
        np.testing.assert_allclose(split.inputs, (features[ids] - mean) / std, atol=1e-5)
        for index, task in enumerate(development.tasks):
            assert split.targets[task.name].tolist() == labels[ids, index].tolist()
        assert split.targets["class_14"].sum() > 0
    assert len(set(torch.cat([train.ids, development.validation.ids, problem.test.ids]).tolist())) == 60


def test_solar_flares_are_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = [*("zurich-class", "largest-spot-size", "spot-distribution"), *solar_flare._NUMBERS]
    header += list(solar_flare.COLUMNS.values())
    random = np.random.default_rng(0)
    rows = []
    for index in range(80):
        flares = [index % 3, 2 * int(index % 4 == 0), int(index % 8 == 0)]
        rows.append([*random.choice(list("ABC"), 3), *random.integers(1, 3, 7), *flares])
    content = "\n".join(",".join(map(str, row)) for row in [header, *rows]).encode()
    monkeypatch.setattr(solar_flare, "FILE", packed(solar_flare.FILE, content, tmp_path))
    problem = SolarFlare().build(seed=0, folder=tmp_path)
    development = problem.development
    assert [(task.name, task.kind) for task in development.tasks] == [
        (name, "regression") for name in ("common", "moderate", "severe")
    ]
    assert development.train.inputs.shape[1] == 7 + 9
    for split in (development.train, development.validation, problem.test):
        for row, index in enumerate(split.ids.tolist()):
            found = [split.targets[name][row].item() for name in solar_flare.COLUMNS]
            assert found == [index % 3, 2 * int(index % 4 == 0), int(index % 8 == 0)]
    inputs = development.train.inputs.double()
    torch.testing.assert_close(inputs.mean(0), torch.zeros(16, dtype=torch.float64), atol=1e-6, rtol=0)
    severe = development.tasks[2]
    assert severe.scale == (pytest.approx(float(development.train.targets["severe"].std(correction=0))),)


def test_a_pair_is_the_brighter_of_both(tiny_fashion) -> None:
    problem = MultiFashion(train_size=None, shift=8).build(seed=0, folder=tiny_fashion.folder)
    development = problem.development
    assert development.train.inputs.shape == (320, 1, 36, 36) and len(problem.test) == 60
    lowest, highest = development.train.inputs.min(), development.train.inputs.max()
    assert development.train.inputs.mean().item() == pytest.approx(0.0, abs=1e-5)
    for split, images, labels, first in (
        (development.train, tiny_fashion.images, tiny_fashion.labels, 0),
        (problem.test, tiny_fashion.test_images, tiny_fashion.test_labels, 400),
    ):
        pixels = ((split.inputs - lowest) / (highest - lowest) * 255).round().numpy()[:, 0]
        own = images[split.ids.numpy() - first]
        assert split.targets["upper_left"].tolist() == labels[split.ids.numpy() - first].tolist()
        np.testing.assert_array_equal(pixels[:, :8, :28], own[:, :8])  # nothing lies over these rows
        for row in range(len(split)):  # its partner is of the same split
            partner = [i for i in range(len(split)) if (own[i][20:] == pixels[row][28:, 8:]).all()]
            assert len(partner) == 1
            other = images[split.ids[partner[0]] - first]
            np.testing.assert_array_equal(pixels[row][8:28, 8:28], np.maximum(own[row][8:, 8:], other[:20, :20]))
            assert int(split.targets["lower_right"][row]) == int(labels[split.ids[partner[0]] - first])


def test_a_digit_may_be_the_partner(tiny_fashion, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    table = np.c_[random.integers(0, 256, (200, 784)), np.arange(200) % 10]
    content = "\n".join(",".join(map(str, row)) for row in table).encode()
    monkeypatch.setattr(mnist, "FILE", packed(mnist.FILE, content, tiny_fashion.folder))
    problem = MultiFashion(train_size=None, second="mnist").build(seed=0, folder=tiny_fashion.folder)
    development = problem.development
    assert development.tasks[1].classes == tuple("0123456789")
    rows = {tuple(row[-9:-1]): int(row[-1]) for row in table}  # the end of the last line of pixels
    lowest, highest = development.train.inputs.min(), development.train.inputs.max()
    seen: list[set[tuple[int, ...]]] = []
    for split in (development.train, development.validation, problem.test):
        ends = ((split.inputs - lowest) / (highest - lowest) * 255).round().long()[:, 0, -1, -8:]
        assert [rows[tuple(end)] for end in ends.tolist()] == split.targets["lower_right"].tolist()
        seen.append({tuple(end) for end in ends.tolist()})
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_a_missing_file_tells_what_to_install(tmp_path: Path) -> None:
    absent = replace(yeast.FILE, package="transfuse_no_such_package")
    with pytest.raises(DataError, match=r"pip install --no-deps river==0.26.1.*yeast.csv.gz of that package there"):
        absent.read(tmp_path)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = packed(yeast.FILE, b"a,b\n", tmp_path)
    path = tmp_path / "yeast" / "yeast.csv.gz"
    assert file.read(tmp_path) == b"a,b\n"
    with pytest.raises(DataError, match="does not hold the Yeast that is expected"):
        replace(file, sha256="0" * 64).read(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"is not a whole packed file.*Install it again"):
        file.read(tmp_path)


def test_an_installed_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "transfuse_packaged_data"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "data.csv.gz").write_bytes(gzip.compress(b"installed"))
    monkeypatch.syspath_prepend(tmp_path)
    file = PackagedFile(
        title="Tiny",
        stem="tiny",
        package=package.name,
        path="data.csv.gz",
        install="pip install tiny",
        sha256=hashlib.sha256(b"installed").hexdigest(),
    )
    assert file.read(tmp_path / "data") == b"installed"
    assert package.name not in sys.modules


def test_bad_input_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="`second` should be fashion or mnist"):
        MultiFashion(second="cifar")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match=r"`shift` should be in 0..28"):
        MultiFashion(shift=29)
    with pytest.raises(HyperparameterError, match="`validation_fraction`"):
        SolarFlare(validation_fraction=1.0)
