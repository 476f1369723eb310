from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, networks
from transfuse.strategy.weight_fusion import IsoC, merge
from transfuse.strategy.weight_fusion.iso_c import isotropic


@pytest.mark.parametrize(
    ("name", "scale", "tag", "atol"),
    [("iso_c_1.0", 1.0, "f64", 1e-12), ("iso_c_1.5", 1.5, "f64", 1e-12), ("iso_c_1.0", 1.0, "f32", 5e-6)],
)
def test_golden(golden: Path, name: str, scale: float, tag: str, atol: float) -> None:
    models, base = networks(golden, tag)
    merged = merge(models, method="iso_c", base=base, scale=scale)
    assert_golden(merged, golden / f"{name}_{tag}.safetensors", atol=atol)


@pytest.mark.parametrize("shape", [(8, 8), (8, 5), (5, 8)], ids=str)
def test_singular_values_are_equal_and_the_polar_factor_is_that_of_the_sum(shape: tuple[int, int]) -> None:
    deltas_KOI = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    merged = isotropic(deltas_KOI).numpy()
    total = deltas_KOI.sum(0).numpy()
    left, values, right = np.linalg.svd(total, full_matrices=False)
    np.testing.assert_allclose(np.linalg.svd(merged, compute_uv=False), np.full(5 if 5 in shape else 8, values.mean()))
    np.testing.assert_allclose(merged / values.mean(), left @ right, atol=1e-10)


def test_inputs_that_no_task_moved_stay_unmoved_and_count_in_the_mean() -> None:
    total = torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(isotropic(total[None]), torch.diag(torch.tensor([4 / 3, 4 / 3, 0.0])).double())


def test_equal_models_give_the_isotropic_task_times_their_number() -> None:
    model, base = {"w": torch.diag(torch.tensor([2.0, 4.0]))}, {"w": torch.zeros(2, 2)}
    torch.testing.assert_close(IsoC().merged([model] * 3, base)["w"], 9 * torch.eye(2))
