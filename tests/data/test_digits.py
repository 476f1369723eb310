from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from transfuse.data import Digits, DigitsTasks
from transfuse.types import HyperparameterError, Problem, Split


def parts(problem: Problem) -> tuple[Split, Split, Split]:
    return problem.development.train, problem.development.validation, problem.test


def test_sizes_types_and_strata(tmp_path: Path) -> None:
    problem = Digits().build(seed=0, folder=tmp_path)
    assert [len(part) for part in parts(problem)] == [599, 299, 899]
    assert problem.development.kind == "single_task"
    assert problem.development.name == "digits"
    assert problem.development.input_shape == (1, 8, 8)
    shares = np.bincount(load_digits().target) / 1797
    for part in parts(problem):
        assert part.inputs.dtype == torch.float32
        assert part.targets["digit"].dtype == torch.int64
        np.testing.assert_allclose(np.bincount(part.targets["digit"]) / len(part), shares, atol=0.004)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_image(tmp_path: Path, seed: int) -> None:
    train, validation, test = parts(Digits().build(seed=seed, folder=tmp_path))
    ids = torch.cat([train.ids, validation.ids, test.ids])
    assert torch.equal(ids.sort().values, torch.arange(1797))
    # no two of the 1797 images are equal, so pixels tell images apart
    pixels = torch.cat([train.inputs, validation.inputs, test.inputs]).flatten(1)
    assert len(torch.unique(pixels, dim=0)) == 1797


def test_scaled_by_training_pixels_and_labelled_as_the_source(tmp_path: Path) -> None:
    problem = Digits().build(seed=0, folder=tmp_path)
    raw = load_digits()
    train_pixels = raw.images[problem.development.train.ids.numpy()]
    for part in parts(problem):
        expected = (raw.images[part.ids.numpy()] - train_pixels.mean()) / train_pixels.std()
        np.testing.assert_allclose(part.inputs[:, 0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(part.targets["digit"], raw.target[part.ids.numpy()])


def test_two_builds_are_bit_identical_and_seeds_differ(tmp_path: Path) -> None:
    first, again, other = (Digits().build(seed=seed, folder=tmp_path) for seed in (0, 0, 1))
    assert first.development.fingerprint == again.development.fingerprint != other.development.fingerprint
    for one, two in zip(parts(first), parts(again), strict=True):
        assert torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.ids, two.ids)
    assert not torch.equal(first.test.ids, other.test.ids)


@pytest.mark.parametrize("cls", [Digits, DigitsTasks])
@pytest.mark.parametrize("field", ["test_fraction", "validation_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_out_of_range(cls: type[Digits] | type[DigitsTasks], field: str, value: float) -> None:
    with pytest.raises(HyperparameterError, match=rf"^`{field}` should be in \(0, 1\)\. Found `{field} = {value}`\.$"):
        cls(**{field: value})
