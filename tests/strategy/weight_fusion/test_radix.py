from __future__ import annotations

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion.radix import magnitude_keys, place, radix_cut, threshold_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keys_order_as_magnitudes(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    steps = [0.0, limits.tiny / 4, limits.tiny, 1.0, 1 + limits.eps, limits.max, torch.inf]
    ascending = torch.tensor(steps, dtype=dtype)
    for values in (ascending, -ascending):
        keys = magnitude_keys(values)
        assert keys.dtype == (np.uint32 if dtype == torch.float32 else np.uint64)
        assert (np.diff(keys.astype(object)) > 0).all()
        assert [threshold_of(key) for key in keys] == ascending.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_cut_is_that_of_a_stable_sort(dtype: torch.dtype, rounded: bool) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (values.round() if rounded else values).to(dtype)
    keys = magnitude_keys(values)
    order = np.argsort(-values.abs().numpy(), kind="stable")
    for count in (1, 2, 500, 999, 1000):
        cut = radix_cut(lambda: iter(np.array_split(keys, 7)), count)
        assert (cut.threshold, cut.last) == (abs(float(values[order[count - 1]])), order[count - 1])


def test_places_are_counted_over_pieces() -> None:
    pieces = [np.array([5, 1], dtype=np.uint32), np.array([1, 5, 5], dtype=np.uint32)]
    assert [place(lambda: iter(pieces), np.uint32(5), need) for need in (1, 2, 3)] == [0, 3, 4]
    with pytest.raises(AssertionError, match="1 equal elements are missing"):
        place(lambda: iter(pieces), np.uint32(5), 4)
