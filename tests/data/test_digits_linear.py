from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from transfuse.data import DigitsLinear
from transfuse.types import HyperparameterError


def test_the_third_target_is_linear_in_the_pixels_but_for_noise(tmp_path: Path) -> None:
    def targets(noise: float) -> np.ndarray:
        problem = DigitsLinear(noise=noise).build(seed=5, folder=tmp_path)
        splits = (problem.development.train, problem.development.validation, problem.test)
        values = np.empty(1797)
        for split in splits:
            values[split.ids.numpy()] = split.targets["linear"].squeeze(1).numpy()
        return values

    clean = targets(0.0)
    assert clean.mean() == pytest.approx(0.0, abs=1e-6) and clean.std() == pytest.approx(1.0, abs=1e-6)
    pixels = np.c_[np.ones(1797), load_digits().data]
    fitted = pixels @ np.linalg.lstsq(pixels, clean, rcond=None)[0]
    np.testing.assert_allclose(fitted, clean, atol=1e-5)
    noise = (targets(0.4) - clean) / 0.4
    assert noise.mean() == pytest.approx(0.0, abs=0.1) and noise.std() == pytest.approx(1.0, abs=0.1)


def test_seeds_split_and_do_not_redraw(tmp_path: Path) -> None:
    first, second = (DigitsLinear().build(seed=seed, folder=tmp_path) for seed in (0, 1))
    assert not torch.equal(first.test.ids, second.test.ids)
    shared = sorted(set(first.test.ids.tolist()) & set(second.test.ids.tolist()))
    value = {seed: dict(zip(problem.test.ids.tolist(), problem.test.targets["linear"].tolist(), strict=True))
             for seed, problem in enumerate((first, second))}  # fmt: skip
    assert shared and all(value[0][each] == value[1][each] for each in shared)
    development = first.development
    assert (len(development.train), len(development.validation), len(first.test)) == (998, 200, 599)
    linear = development.tasks[2]
    assert linear.scale == (pytest.approx(float(development.train.targets["linear"].std(correction=0))),)
    assert torch.equal(development.train.targets["parity"], development.train.targets["digit"] % 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="`noise` should be >= 0"):
        DigitsLinear(noise=-0.1)
    with pytest.raises(HyperparameterError, match="`test_fraction`"):
        DigitsLinear(test_fraction=0.0)
