from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import DareLinear, DellaLinear, merge
from transfuse.strategy.weight_fusion.magnitude_sampling import keep_probabilities, magnitude_order
from transfuse.types import HyperparameterError


def test_golden_single_model_with_recovered_masks(golden: Path) -> None:
    base, model = load_file(golden / "checkpoint_base.safetensors"), load_file(golden / "checkpoint_ft2.safetensors")
    expected = load_file(golden / "checkpoint_della_linear_single.safetensors")
    keep = {key: expected[key] != base[key] for key in base}
    merged = merge([model], method="della_linear", base=base, masks=[keep], rescale="l1")
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(40,), (6, 9), (4, 3, 2, 2), ()])
@pytest.mark.parametrize("rank_over", ["row", "tensor"])
def test_kept_elements_are_divided_by_their_probability(
    shape: tuple[int, ...], rank_over: str, dtype: torch.dtype
) -> None:
    base = {"w": torch.zeros(shape, dtype=dtype)}
    model = {"w": torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)}
    keep = {"w": torch.ones(shape, dtype=torch.bool)}
    method = DellaLinear(density=0.4, epsilon=0.2, rank_over=rank_over)  # type: ignore[arg-type]
    merged = method.merged([model], base, masks=[keep])["w"].double().numpy()
    values = model["w"].double().numpy()
    rows = values.reshape(shape[0], -1) if rank_over == "row" and len(shape) > 1 else values.reshape(1, -1)
    ranks = np.abs(rows).argsort(axis=1, kind="stable").argsort(axis=1)
    count = rows.shape[1]
    probabilities = 0.2 + 0.4 * ranks / (count - 1) if count > 1 else np.full((1, 1), 0.4)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(merged, (rows / probabilities).reshape(shape), rtol=tolerance)


def test_larger_elements_are_kept_more_often() -> None:
    model, base = {"w": torch.arange(1.0, 5.0).repeat(1, 1)}, {"w": torch.zeros(1, 4)}
    method = DellaLinear(density=0.5, epsilon=0.4, rescale="none")
    kept = torch.stack([method.merged([model], base, seed=seed)["w"] > 0 for seed in range(2000)]).double().mean(0)[0]
    expected = np.array([0.1, 0.1 + 0.8 / 3, 0.1 + 1.6 / 3, 0.9])
    np.testing.assert_allclose(kept.numpy(), expected, atol=0.045)  # 4 standard errors


def test_equal_probabilities_are_the_same_share_as_dare() -> None:
    model, base = {"w": torch.ones(100_000)}, {"w": torch.zeros(100_000)}
    for method in (DellaLinear(density=0.3, epsilon=0.0), DareLinear(density=0.3)):
        share = (method.merged([model], base)["w"] > 0).double().mean().item()
        assert share == pytest.approx(0.3, abs=3 * (0.21 / 100_000) ** 0.5)


def test_one_element_is_kept_with_the_density() -> None:
    assert keep_probabilities(1, 0.5, 0.3).tolist() == [0.5]
    model, base = {"w": torch.tensor([2.0])}, {"w": torch.zeros(1)}
    method = DellaLinear(density=0.5, epsilon=0.3)
    merged = torch.cat([method.merged([model], base, seed=seed)["w"] for seed in range(400)])
    assert set(merged.tolist()) == {0.0, 4.0} and 150 < int((merged > 0).sum()) < 250


def test_probabilities_stay_in_their_range() -> None:
    for density, epsilon in ((0.85, 0.15), (0.7, 0.3), (0.5, 0.499)):
        probabilities = keep_probabilities(1001, density, epsilon)
        assert probabilities.min() > 0 and probabilities.max() <= 1
        assert probabilities.mean() == pytest.approx(density)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_order_is_a_stable_argsort(dtype: torch.dtype) -> None:
    stream = np.random.default_rng(0)
    rows = np.round(stream.normal(size=(7, 300)), 1)
    rows[0], rows[1, ::2] = 0.0, -0.0
    rows[2] *= 1e-42  # subnormal in float32
    values = torch.from_numpy(rows).to(dtype)
    expected = np.abs(values.numpy()).argsort(axis=1, kind="stable")
    assert np.array_equal(magnitude_order(values).numpy(), expected)


@pytest.mark.parametrize(("density", "epsilon"), [(0.5, 0.5), (0.9, 0.15), (0.5, -0.1), (1.0, 0.15)])
def test_probabilities_out_of_range_are_refused(density: float, epsilon: float) -> None:
    with pytest.raises(
        HyperparameterError,
        match=rf"`epsilon` should be >= 0, with .* Found `density = {density}` and `epsilon = {epsilon}`",
    ):
        DellaLinear(density=density, epsilon=epsilon)
    with pytest.raises(HyperparameterError, match="`rank_over` should be row or tensor. Found `rank_over = column`"):
        DellaLinear(rank_over="column")  # type: ignore[arg-type]
