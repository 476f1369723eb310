from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from transfuse.data import DigitsNoise
from transfuse.types import DataError, Development, HyperparameterError, Problem


def source_of(problem: Problem) -> Development:
    assert problem.development.source is not None
    return problem.development.source


def clean_pixels(problem: Problem, ids: torch.Tensor) -> torch.Tensor:
    """Standardized by the source's training images, computed here from scikit-learn's copy."""
    images = load_digits().images
    train = images[source_of(problem).train.ids.numpy()]
    return torch.from_numpy((images[ids.numpy()] - train.mean()) / train.std()).float().unsqueeze(1)


def test_sizes_and_kinds(tmp_path: Path) -> None:
    problem = DigitsNoise().build(seed=0, folder=tmp_path)
    source = source_of(problem)
    assert problem.development.kind == "transfer"
    assert source.kind == "single_task"
    assert [len(part) for part in (source.train, source.validation)] == [575, 144]
    assert [len(part) for part in (problem.development.train, problem.development.validation)] == [50, 100]
    assert len(problem.test) == 539
    assert problem.development.tasks == source.tasks
    assert torch.bincount(problem.development.train.targets["digit"]).tolist() == [5] * 10
    assert source.fingerprint != problem.development.fingerprint
    assert "0.7 standard deviations" in problem.notes[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_image_is_in_two_splits(tmp_path: Path, seed: int) -> None:
    problem = DigitsNoise().build(seed=seed, folder=tmp_path)
    source, target = source_of(problem), problem.development
    ids = torch.cat(
        [part.ids for part in (source.train, source.validation, target.train, target.validation, problem.test)]
    )
    assert len(ids.unique()) == len(ids)
    # by pixels, before the noise: the same images in scikit-learn's copy are all different
    pixels = clean_pixels(problem, ids).flatten(1)
    assert len(torch.unique(pixels, dim=0)) == len(ids)


def test_source_is_clean_and_target_noisy(tmp_path: Path) -> None:
    problem = DigitsNoise().build(seed=0, folder=tmp_path)
    source, target = source_of(problem), problem.development
    for clean in (source.train, source.validation):
        torch.testing.assert_close(clean.inputs, clean_pixels(problem, clean.ids), rtol=1e-5, atol=1e-6)
    for noisy in (target.train, target.validation, problem.test):
        noise = noisy.inputs - clean_pixels(problem, noisy.ids)
        # mean and deviation of n normal numbers, five standard errors
        assert abs(noise.mean().item()) < 5 * 0.7 / noise.numel() ** 0.5
        assert noise.std().item() == pytest.approx(0.7, abs=5 * 0.7 / (2 * noise.numel()) ** 0.5)
        # each image has noise of its own
        flat = noise.flatten(1)[:50]
        assert np.abs(np.corrcoef(flat) - np.eye(len(flat))).max() < 0.7


def test_without_noise_the_target_is_clean(tmp_path: Path) -> None:
    test = (problem := DigitsNoise(noise=0.0).build(seed=0, folder=tmp_path)).test
    torch.testing.assert_close(test.inputs, clean_pixels(problem, test.ids), rtol=1e-5, atol=1e-6)


def test_builds_are_bit_identical_and_the_source_does_not_see_the_target(tmp_path: Path) -> None:
    config = DigitsNoise()
    first, again = (config.build(seed=0, folder=tmp_path) for _ in range(2))
    louder = replace(config, noise=1.0, target_size=20).build(seed=0, folder=tmp_path)
    assert first.development.fingerprint == again.development.fingerprint != louder.development.fingerprint
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert source_of(first).fingerprint == source_of(louder).fingerprint


def test_smaller_targets_are_part_of_larger_ones_with_the_same_noise(tmp_path: Path) -> None:
    small, large = (DigitsNoise(target_size=size).build(seed=0, folder=tmp_path) for size in (20, 55))
    few, many = small.development.train, large.development.train
    assert set(few.ids.tolist()) < set(many.ids.tolist())
    position = {int(id_): row for row, id_ in enumerate(many.ids)}
    rows = torch.tensor([position[int(id_)] for id_ in few.ids])
    assert torch.equal(few.inputs, many.inputs[rows])
    assert torch.equal(small.development.validation.inputs, large.development.validation.inputs)
    assert torch.equal(small.test.inputs, large.test.inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_size": 9}, r"^`target_size` should be >= 10 \(one image a class\)\. Found `target_size = 9`\.$"),
        ({"validation_size": 0}, r"`validation_size` should be >= 10"),
        ({"noise": -0.1}, r"`noise` should be >= 0 and finite"),
        ({"noise": float("inf")}, r"`noise` should be >= 0 and finite"),
        ({"source_fraction": 0.7}, r"`source_fraction \+ test_fraction` should be < 1"),
        ({"source_fraction": 1.0}, r"`source_fraction` should be in \(0, 1\)"),
        ({"test_fraction": 0.0}, r"`test_fraction` should be in \(0, 1\)"),
        ({"source_validation_fraction": 1.5}, r"`source_validation_fraction` should be in \(0, 1\)"),
    ],
)
def test_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        DigitsNoise(**fields)  # type: ignore[arg-type]


def test_a_pool_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="500 balanced examples for target training need 50 of class 0"):
        DigitsNoise(target_size=500).build(seed=0, folder=tmp_path)
    with pytest.raises(DataError, match="539 examples for target validation cannot be split off from 539"):
        DigitsNoise(validation_size=539).build(seed=0, folder=tmp_path)
