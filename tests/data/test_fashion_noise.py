from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transfuse.data import FashionNoise
from transfuse.data.fashion_mnist import ARCHIVE
from transfuse.types import DataError, Development, HyperparameterError, Problem


def source_of(problem: Problem) -> Development:
    assert problem.development.source is not None
    return problem.development.source


def test_halves_of_the_training_file(tiny_fashion: Any) -> None:
    # 40 + 160 images use the whole second half
    problem = FashionNoise(target_size=40, validation_size=160).build(seed=0, folder=tiny_fashion.folder)
    target, source = problem.development, source_of(problem)
    assert target.kind == "transfer"
    assert [len(source.train), len(source.validation), len(target.train), len(target.validation)] == [160, 40, 40, 160]
    assert target.input_shape == source.input_shape == (1, 14, 14)
    assert sorted(source.train.ids.tolist() + source.validation.ids.tolist()) == list(range(200))
    assert sorted(target.train.ids.tolist() + target.validation.ids.tolist()) == list(range(200, 400))
    assert problem.test.ids.tolist() == list(range(400, 460))
    assert torch.bincount(target.train.targets["article"]).tolist() == [4] * 10
    assert torch.bincount(target.validation.targets["article"]).tolist() == [16] * 10


def test_averaged_then_standardized_then_noisy(tiny_fashion: Any) -> None:
    problem = FashionNoise(target_size=30, validation_size=40).build(seed=0, folder=tiny_fashion.folder)
    images = np.concatenate([tiny_fashion.images, tiny_fashion.test_images])
    averaged = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    source = source_of(problem)
    train = averaged[source.train.ids.numpy()]
    clean = (averaged - train.mean()) / train.std()
    for part in (source.train, source.validation):
        np.testing.assert_allclose(part.inputs[:, 0], clean[part.ids.numpy()], rtol=1e-4, atol=1e-4)
    for part in (problem.development.train, problem.development.validation, problem.test):
        noise = part.inputs[:, 0].numpy() - clean[part.ids.numpy()]
        # mean and deviation of n normal numbers, five standard errors
        assert abs(noise.mean()) < 5 * 0.7 / noise.size**0.5
        assert noise.std() == pytest.approx(0.7, abs=5 * 0.7 / (2 * noise.size) ** 0.5)


def test_without_averaging_on_a_small_source(tiny_fashion: Any) -> None:
    config = FashionNoise(source_size=100, target_size=10, validation_size=10, pool=1)
    problem = config.build(seed=0, folder=tiny_fashion.folder)
    assert problem.development.input_shape == (1, 28, 28)
    assert [len(source_of(problem).train), len(source_of(problem).validation)] == [80, 20]
    with pytest.raises(DataError, match="`source_size` should be at most 200"):
        FashionNoise(source_size=201).build(seed=0, folder=tiny_fashion.folder)


def test_two_builds_are_bit_identical(tiny_fashion: Any) -> None:
    config = FashionNoise(target_size=10, validation_size=10)
    first, again, other = (config.build(seed=seed, folder=tiny_fashion.folder) for seed in (0, 0, 1))
    assert first.development.fingerprint == again.development.fingerprint != other.development.fingerprint
    assert source_of(first).fingerprint == source_of(again).fingerprint
    assert torch.equal(first.test.inputs, again.test.inputs)
    # the test images stay, their noise follows the seed
    assert torch.equal(first.test.ids, other.test.ids)
    assert not torch.equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": 3}, r"^`pool` should be 1, 2, 4, 7 or 14\. Found `pool = 3`\.$"),
        ({"source_size": 0}, r"`source_size` should be >= 100 or null"),
        ({"source_validation_fraction": 1.0}, r"`source_validation_fraction` should be in \(0, 1\)"),
        ({"target_size": 9}, r"`target_size` should be >= 10"),
        ({"validation_size": 9}, r"`validation_size` should be >= 10"),
        ({"noise": float("nan")}, r"`noise` should be >= 0 and finite"),
    ],
)
def test_out_of_range(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        FashionNoise(**fields)


@pytest.mark.skipif(
    not all((ARCHIVE.system / name).is_file() for name in ARCHIVE.sha256),
    reason=f"Fashion-MNIST is not in {ARCHIVE.system}; `{ARCHIVE.install}` puts it there",
)
def test_real_images_are_in_one_split_only(tmp_path: Path) -> None:
    problem = FashionNoise(source_size=2000, noise=0.0, pool=1).build(seed=0, folder=tmp_path)
    source, target = source_of(problem), problem.development
    parts = (source.train, source.validation, target.train, target.validation, problem.test)
    assert [len(part) for part in parts] == [1600, 400, 50, 1000, 10000]
    assert len(torch.cat([part.ids for part in parts]).unique()) == 13050
    # no two images of the files are equal, so pixels tell images apart
    assert len({image.tobytes() for part in parts for image in part.inputs.numpy()}) == 13050
