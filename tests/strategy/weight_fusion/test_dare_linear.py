from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import DareLinear, merge


@pytest.mark.parametrize(("name", "rescale"), [("single", "l1"), ("single_norescale", "none")])
def test_golden_single_model_with_recovered_masks(golden: Path, name: str, rescale: str) -> None:
    base, model = load_file(golden / "checkpoint_base.safetensors"), load_file(golden / "checkpoint_ft2.safetensors")
    expected = load_file(golden / f"checkpoint_dare_linear_{name}.safetensors")
    keep = {key: expected[key] != base[key] for key in base}
    merged = merge([model], method="dare_linear", base=base, masks=[keep], rescale=rescale)
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("name", "bits", "rescale", "tolerance"),
    [
        ("dare_ta", "f64", "inverse", 1e-12),
        ("dare_ta", "f32", "inverse", 5e-6),
        ("dare_ta_norescale", "f64", "none", 1e-12),
    ],
)
def test_golden_three_tasks_with_given_masks(
    golden: Path, name: str, bits: str, rescale: str, tolerance: float
) -> None:
    inputs = load_file(golden / f"task_vectors_{bits}.safetensors")
    expected = load_file(golden / f"{name}_{bits}.safetensors")
    base, *models = (
        {key.removeprefix(f"{owner}/"): value for key, value in inputs.items() if key.startswith(f"{owner}/")}
        for owner in ("base", "task1", "task2", "task3")
    )
    keep = [{key: expected[f"mask/{task}/{key}"] for key in base} for task in ("task1", "task2", "task3")]
    merged = merge(models, method="dare_linear", base=base, masks=keep, scale=0.3, rescale=rescale, density=0.5)
    for key, value in merged.items():
        torch.testing.assert_close(value, expected[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_a_share_of_the_density_is_kept_and_rescaled(density: float) -> None:
    base, model, method = {"w": torch.zeros(20_000)}, {"w": torch.ones(20_000)}, DareLinear(density=density)
    merged = torch.cat([method.merged([model], base, seed=seed)["w"] for seed in range(20)])
    assert set(merged.unique().tolist()) == {0.0, float(np.float32(1 / density))}
    error = (density * (1 - density) / merged.numel()) ** 0.5
    assert abs((merged > 0).double().mean() - density) < 3 * error


def test_l1_rescaling_restores_the_sum_of_magnitudes() -> None:
    stream = torch.Generator().manual_seed(0)
    base, model = {"w": torch.zeros(150_000)}, {"w": torch.randn(150_000, generator=stream)}
    merged = DareLinear(density=0.2, rescale="l1").merged([model], base)["w"]
    assert merged.abs().double().sum().item() == pytest.approx(model["w"].abs().double().sum().item(), rel=1e-6)


def test_weights_and_scale_multiply_the_task_vectors() -> None:
    stream = torch.Generator().manual_seed(0)
    *models, base = ({"w": torch.randn(50, generator=stream, dtype=torch.float64)} for _ in range(3))
    method = DareLinear(density=0.5, weights=(2.0, -1.0), scale=0.7)
    single = [
        DareLinear(density=0.5, weights=weights).merged(models, base)["w"] - base["w"]
        for weights in ((1.0, 0.0), (0.0, 1.0))
    ]
    expected = base["w"] + 0.7 * (2 * single[0] - single[1])
    torch.testing.assert_close(method.merged(models, base)["w"], expected, rtol=1e-12, atol=1e-12)


def test_a_scale_is_searched_on_validation_data(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    context = toys.context(members, data, start)
    fused = DareLinear(density=0.9, scale="search", grid=(0.0, 0.5, 4.0)).apply(context)
    tried = fused.diagnostics["search"]["tried"]
    assert [row["scale"] for row in tried] == [0.0, 0.5, 4.0] and fused.looks == 3
    assert fused.diagnostics["search"]["taken"]["scale"] == min(tried, key=lambda row: row["score"])["scale"]
    states = [member.state_dict() for member in members]
    taken = DareLinear(density=0.9, scale=fused.diagnostics["search"]["taken"]["scale"])
    merged = taken.merged(states, start.state_dict(), seed=context.seed)
    assert all(torch.equal(value, fused.network.state_dict()[key]) for key, value in merged.items())
