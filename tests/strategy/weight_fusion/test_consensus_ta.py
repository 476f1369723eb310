from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import ConsensusTA, merge, tall_masks
from transfuse.types import HyperparameterError, NeedsContextError


def golden_states(golden: Path) -> list[dict[str, torch.Tensor]]:
    """Base, then three tasks, keys sorted."""
    inputs = load_file(golden / "task_vectors_f64.safetensors")
    return [
        {key.removeprefix(f"{owner}/"): inputs[key] for key in sorted(inputs) if key.startswith(f"{owner}/")}
        for owner in ("base", "task1", "task2", "task3")
    ]


@pytest.mark.parametrize("lam", [0.2, 0.4, 0.6])
def test_golden_masks(golden: Path, lam: float) -> None:
    base, *tasks = golden_states(golden)
    deltas_KB = torch.stack([torch.cat([(task[key] - base[key]).reshape(-1) for key in base]) for task in tasks])
    expected = load_file(golden / "tall_masks_f64.safetensors")[f"mask_lambda{lam}"]
    assert torch.equal(tall_masks(deltas_KB, deltas_KB.sum(0), (lam,) * 3), expected.bool())


@pytest.mark.parametrize("lam", [0.2, 0.4, 0.6])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_golden_consensus(golden: Path, lam: float, k: int) -> None:
    base, *tasks = golden_states(golden)
    mask_B = load_file(golden / "tall_masks_f64.safetensors")[f"consensus_mask_lambda{lam}_k{k}"].bool()
    merged = merge(tasks, method="consensus_ta", base=base, lam=lam, k=k, scale=0.5)
    found_B = torch.cat([(merged[key] - base[key]).reshape(-1) for key in base])
    total_B = torch.cat([sum(task[key] - base[key] for task in tasks).reshape(-1) for key in base])
    np.testing.assert_allclose(found_B.numpy(), (0.5 * total_B * mask_B).numpy(), rtol=0, atol=1e-12)
    assert torch.equal(found_B != 0, mask_B & (total_B != 0))


def states(count: int) -> list[dict[str, torch.Tensor]]:
    stream = torch.Generator().manual_seed(0)
    return [{"w": torch.randn(200, generator=stream, dtype=torch.float64)} for _ in range(count)]


def test_masks_that_are_all_true_leave_task_arithmetic() -> None:
    *models, base = states(4)
    merged = ConsensusTA(lam=0.0, k=1, scale=0.4).merged(models, base)["w"]
    expected = merge(models, method="task_arithmetic", base=base, scale=0.4)["w"]
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-12)


def test_a_threshold_a_model() -> None:
    *models, base = states(3)
    merged = ConsensusTA(lam=(0.0, 1.0), k=2, scale=1.0).merged(models, base)["w"]
    first, second = (model["w"] - base["w"] for model in models)
    expected = base["w"] + torch.where(second.abs() >= first.abs(), first + second, 0.0)
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-12)


def test_scale_shift_and_size_of_task_vectors() -> None:
    *models, base = states(4)
    method = ConsensusTA()
    delta = method.merged(models, base)["w"] - base["w"]
    shifted = method.merged([{"w": model["w"] + 2} for model in models], {"w": base["w"] + 2})["w"]
    torch.testing.assert_close(shifted - base["w"] - 2, delta, rtol=1e-12, atol=1e-12)
    tripled = method.merged([{"w": 3 * model["w"] - 2 * base["w"]} for model in models], base)["w"]
    torch.testing.assert_close(tripled - base["w"], 3 * delta, rtol=1e-12, atol=1e-12)
    assert torch.equal(ConsensusTA(scale=0.0).merged(models, base)["w"], base["w"])
    assert torch.equal(method.merged([base] * 3, base)["w"], base["w"])


def test_a_threshold_is_searched_on_validation_data(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    fused = ConsensusTA(lam="search", scale="search", grid=(0.3, 1.0)).apply(toys.context(members, data, start))
    tried = fused.diagnostics["search"]["tried"]
    assert sorted((row["scale"], row["lam"]) for row in tried) == [
        (scale, lam) for scale in (0.3, 1.0) for lam in (0.2, 0.3, 0.4, 0.5, 0.6)
    ]
    best = min(tried, key=lambda row: row["score"])
    assert fused.looks == 10 and fused.diagnostics["search"]["taken"] == {name: best[name] for name in ("scale", "lam")}


def test_bad_input_is_told(toys) -> None:
    *models, base = states(3)
    with pytest.raises(HyperparameterError, match="`k` should be at most 2, the number of models. Found `k = 3`"):
        ConsensusTA(k=3).merged(models, base)
    with pytest.raises(HyperparameterError, match=r"`lam` should have 2 entries \(one a model\). Found 3"):
        ConsensusTA(lam=(0.1, 0.2, 0.3)).merged(models, base)
    with pytest.raises(HyperparameterError, match="`k` should be at least 1. Found `k = 0`"):
        ConsensusTA(k=0)
    for lam in (-0.1, float("nan"), "best", (0.4, -1.0)):
        with pytest.raises(HyperparameterError, match="`lam` should be a number >= 0, one a model, or search. Found"):
            ConsensusTA(lam=lam)  # type: ignore[arg-type]
    with pytest.raises(NeedsContextError, match="lam=search needs labelled validation data"):
        ConsensusTA(lam="search").merged(models, base)
    data = toys.development()
    start, members = toys.finetuned(2, data)
    with pytest.raises(HyperparameterError, match="`k` should be at most 2"):
        ConsensusTA(k=3).check(data, toys.context(members, data, start).base_models.description)
