from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, random_models
from transfuse.strategy.weight_fusion import Breadcrumbs, TaskArithmetic, merge
from transfuse.types import HyperparameterError

WEIGHTS = (0.5, 0.3, 0.4)


@pytest.mark.parametrize(
    ("name", "fields"), [("breadcrumbs", {}), ("breadcrumbs_d05", {"density": 0.5, "gamma": 0.05})]
)
def test_golden(golden: Path, name: str, fields: dict[str, Any]) -> None:
    models, base = checkpoints(golden)
    merged = merge(models, method="breadcrumbs", base=base, weights=WEIGHTS, scale=1.0, **fields)
    assert_golden(merged, golden / f"checkpoint_{name}.safetensors", atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("density", "gamma"), [(0.9, 0.01), (0.5, 0.5), (0.1, 0.2), (0.9, 0.0), (1.0, 0.0), (0.3, 0.7)]
)
def test_exactly_the_band_is_kept(density: float, gamma: float, dtype: torch.dtype) -> None:
    for size in (1, 2, 7, 99, 100, 101, 70_001):
        deltas = torch.randint(1, 6, (size,), generator=torch.Generator().manual_seed(size)) / 8
        base = {"w": torch.zeros(size, dtype=dtype)}
        merged = Breadcrumbs(density=density, gamma=gamma, scale=1.0).merged([{"w": deltas.to(dtype)}], base)["w"]
        kept = max(1, int(density * size))
        dropped = min(int(gamma * size), size - kept)
        expected = np.zeros(size, dtype=bool)
        expected[np.argsort(-deltas.numpy(), kind="stable")[dropped : dropped + kept]] = True
        assert ((merged != 0).numpy() == expected).all()
        assert torch.equal(merged[expected].float(), deltas[expected])


def test_limits() -> None:
    models, base = random_models(3, 501)
    assert torch.equal(Breadcrumbs(scale=0.0).merged(models, base)["w"], base["w"])
    assert torch.equal(Breadcrumbs().merged([base] * 3, base)["w"], base["w"])
    whole = Breadcrumbs(density=1.0, gamma=0.0, weights=WEIGHTS).merged(models, base)["w"]
    arithmetic = TaskArithmetic(scale=0.3, weights=WEIGHTS).merged(models, base)["w"]
    torch.testing.assert_close(whole, arithmetic, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"density": 0.0}, r"`density` should be in \(0, 1\]. Found `density = 0.0`."),
        ({"density": 1.5}, r"Found `density = 1.5`."),
        ({"gamma": -0.1}, r"`gamma` should be in \[0, 1\). Found `gamma = -0.1`."),
        ({"gamma": 1.0}, r"Found `gamma = 1.0`."),
        ({"gamma": 0.2}, r"`density \+ gamma` should be at most 1. Found `density = 0.9`, `gamma = 0.2`."),
    ],
)
def test_bad_shares_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Breadcrumbs(**fields)
