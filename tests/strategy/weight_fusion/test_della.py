from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import DareTies, Della, merge
from transfuse.types import HyperparameterError


def test_golden_election_without_dropping(golden: Path) -> None:
    base = load_file(golden / "checkpoint_base.safetensors")
    models = [load_file(golden / f"checkpoint_ft{index}.safetensors") for index in (1, 2, 3)]
    expected = load_file(golden / "checkpoint_della_d1.safetensors")
    merged = merge(models, method="della", base=base, density=1.0, epsilon=0.0, weights=[0.5, 0.3, 0.4])
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


def test_with_given_masks_and_no_range_it_is_dare_ties() -> None:
    stream = torch.Generator().manual_seed(0)
    models = [{"w": torch.randn(30, 20, generator=stream, dtype=torch.float64)} for _ in range(3)]
    base = {"w": torch.zeros(30, 20, dtype=torch.float64)}
    keep = [{"w": torch.rand(30, 20, generator=stream) < 0.4} for _ in range(3)]
    della = Della(density=0.4, epsilon=0.0).merged(models, base, masks=keep)["w"]
    dare = DareTies(density=0.4).merged(models, base, masks=keep)["w"]
    torch.testing.assert_close(della, dare, rtol=1e-12, atol=1e-12)


def test_ranks_do_not_depend_on_how_rows_are_cut() -> None:
    stream = torch.Generator().manual_seed(0)
    model = {"w": torch.randn(300, 701, generator=stream)}  # several pieces, none of a leaf's size
    base, method = {"w": torch.zeros(300, 701)}, Della(density=0.5, epsilon=0.3, rescale="inverse")
    merged = method.merged([model], base)["w"]
    ranks = model["w"].abs().argsort(dim=1).argsort(dim=1)
    inverse = model["w"] / (0.2 + 0.6 * ranks / 700)
    kept = merged != 0
    torch.testing.assert_close(merged[kept], inverse[kept].float(), rtol=1e-6, atol=0)
    share = kept.double().mean(0)
    assert abs(kept.double().mean() - 0.5) < 3 * (0.25 / kept.numel()) ** 0.5 and share.min() > 0.3


def test_unknown_merge_is_told() -> None:
    with pytest.raises(HyperparameterError, match="should be mean, sum or max. Found .*= median"):
        Della(merge="median")  # type: ignore[arg-type]
