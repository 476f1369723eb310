from __future__ import annotations

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from transfuse.data.scaling import column_scaling, pixel_scaling


def test_columns_as_scikit_learn_does() -> None:
    values = np.random.default_rng(0).normal(5.0, [0.1, 3.0, 100.0], (50, 3))
    fitted = StandardScaler().fit(values[:40])
    scaling = column_scaling(torch.from_numpy(values[:40]))
    np.testing.assert_allclose(scaling.mean, fitted.mean_, rtol=1e-12)
    np.testing.assert_allclose(scaling.apply(torch.from_numpy(values)), fitted.transform(values), rtol=1e-5, atol=1e-6)


def test_constant_columns_are_kept_at_zero_everywhere() -> None:
    # the mean of 0.1 is not exactly 0.1 in floats, so that the deviation is tiny and not 0
    train = torch.tensor([[0.1, 1.0]] * 10 + [[0.1, 2.0]], dtype=torch.float64)
    scaled = column_scaling(train).apply(torch.tensor([[0.1, 1.0], [7.0, 2.0]], dtype=torch.float64))
    assert scaled[:, 0].tolist() == [0.0, 0.0]
    assert (scaled[:, 1] != 0).all()


def test_large_offsets_keep_their_differences() -> None:
    seconds = 1.7e9 + torch.arange(100, dtype=torch.float64).unsqueeze(1)
    scaled = column_scaling(seconds).apply(seconds)
    assert scaled.dtype == torch.float32
    assert len(scaled.unique()) == 100
    torch.testing.assert_close(scaled.double().std(correction=0), torch.tensor(1.0, dtype=torch.float64))


def test_pixels_have_one_mean_and_deviation_over_chunks() -> None:
    images = torch.randint(0, 256, (5000, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaling = pixel_scaling(images)
    np.testing.assert_allclose(scaling.mean, images.numpy().mean(dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(1 / scaling.factor, images.numpy().std(dtype=np.float64), rtol=1e-12)
    assert scaling.apply(images).dtype == torch.float32


def test_constant_images_become_zero() -> None:
    images = torch.full((3, 1, 2, 2), 0.1)
    assert pixel_scaling(images).apply(images).abs().max() == 0
