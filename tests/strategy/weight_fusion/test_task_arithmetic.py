from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, networks, random_models
from transfuse.strategy.weight_fusion import LinearMerge, TaskArithmetic, merge
from transfuse.types import HyperparameterError

WEIGHTS = (0.5, 0.3, 0.4)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("task_arithmetic", {}), ("task_arithmetic_norm_lambda", {"normalize": True, "scale": 0.7})],
)
def test_golden(golden: Path, name: str, fields: dict[str, Any]) -> None:
    models, base = checkpoints(golden)
    merged = merge(models, method="task_arithmetic", base=base, weights=WEIGHTS, **fields)
    assert_golden(merged, golden / f"checkpoint_{name}.safetensors", atol=2e-7)


@pytest.mark.parametrize(("tag", "atol"), [("f64", 1e-12), ("f32", 5e-6)])
def test_golden_of_a_small_network(golden: Path, tag: str, atol: float) -> None:
    models, base = networks(golden, tag)
    merged = TaskArithmetic(scale=0.3).merged(models, base)
    assert_golden(merged, golden / f"task_arithmetic_{tag}.safetensors", atol)


def test_bfloat16_is_rounded_once_and_nearer_than_bfloat16_arithmetic(golden: Path) -> None:
    models, base = checkpoints(golden, torch.bfloat16)
    merged = merge(models, method="task_arithmetic", base=base, weights=WEIGHTS)
    peer = load_file(golden / "checkpoint_task_arithmetic_bf16.safetensors")
    ours, theirs, rounded = [], [], []
    for key, start in base.items():
        exact = start.double() + sum(
            weight * (model[key].double() - start.double()) for weight, model in zip(WEIGHTS, models, strict=True)
        )
        ours.append((merged[key].double() - exact).abs().reshape(-1))
        theirs.append((peer[key].double() - exact).abs().reshape(-1))
        rounded.append((merged[key] == exact.bfloat16()).reshape(-1))
    assert torch.cat(rounded).double().mean() >= 0.998
    assert torch.cat(ours).mean() < 0.95 * torch.cat(theirs).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ends_are_exact(dtype: torch.dtype) -> None:
    models, base = random_models(3, 999, dtype)
    assert torch.equal(TaskArithmetic(scale=0.0).merged(models, base)["w"], base["w"])
    assert torch.equal(TaskArithmetic().merged(models[:1], base)["w"], models[0]["w"])
    for weights in (None, (0.3, 0.3, 0.3), (0.9, -0.1, 0.7)):
        assert torch.equal(TaskArithmetic(weights=weights).merged([base] * 3, base)["w"], base["w"])
    same = TaskArithmetic(weights=(1 / 3, 1 / 3, 1 / 3)).merged([models[0]] * 3, base)["w"]
    assert torch.equal(same, models[0]["w"])


def test_normalized_with_scale_1_is_linear() -> None:
    models, base = random_models(3, 501)
    found = TaskArithmetic(weights=WEIGHTS, normalize=True).merged(models, base)["w"]
    torch.testing.assert_close(found, LinearMerge(weights=WEIGHTS).merged(models)["w"], rtol=1e-12, atol=1e-14)


def test_negative_weights_forget() -> None:
    model, base = {"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])}
    assert TaskArithmetic(weights=(-1.0,)).merged([model], base)["w"].item() == -1.0


def test_weights_that_sum_to_0_cannot_be_normalized() -> None:
    models, base = random_models(2, 3)
    with pytest.raises(HyperparameterError, match="`weights` should not sum to 0"):
        TaskArithmetic(weights=(1.0, -1.0), normalize=True).merged(models, base)
    difference = TaskArithmetic(weights=(1.0, -1.0)).merged(models, base)["w"]
    np.testing.assert_allclose(difference, base["w"] + models[0]["w"] - models[1]["w"], rtol=1e-12)
