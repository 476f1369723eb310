from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import DareTies, merge
from transfuse.types import HyperparameterError


def test_golden_election_without_dropping(golden: Path) -> None:
    base = load_file(golden / "checkpoint_base.safetensors")
    models = [load_file(golden / f"checkpoint_ft{index}.safetensors") for index in (1, 2, 3)]
    expected = load_file(golden / "checkpoint_dare_ties_d1.safetensors")
    merged = merge(
        models, method="dare_ties", base=base, density=1.0, weights=[0.5, 0.3, 0.4], merge="sum", rescale="l1"
    )
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


def test_every_merged_delta_has_the_sign_of_the_kept_sum() -> None:
    stream = torch.Generator().manual_seed(0)
    models = [{"w": torch.randn(2000, generator=stream)} for _ in range(4)]
    base, keep = {"w": torch.zeros(2000)}, [{"w": torch.rand(2000, generator=stream) < 0.5} for _ in range(4)]
    merged = DareTies(density=0.5).merged(models, base, masks=keep)["w"]
    total = sum(model["w"].double() * mask["w"] for model, mask in zip(models, keep, strict=True))
    kept_any = torch.stack([mask["w"] for mask in keep]).any(0)
    assert torch.equal(merged.sign(), total.sign().float()) and bool((merged[kept_any] != 0).all())
    most = torch.stack([(model["w"] * mask["w"]).abs() for model, mask in zip(models, keep, strict=True)]).amax(0)
    assert bool((merged.abs() <= 2 * most * (1 + 1e-6)).all())


def test_unknown_merge_is_told() -> None:
    with pytest.raises(HyperparameterError, match="should be mean, sum or max. Found .*= median"):
        DareTies(merge="median")  # type: ignore[arg-type]
