from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, networks
from transfuse.strategy.weight_fusion import IsoC, IsoCTS, merge
from transfuse.strategy.weight_fusion.iso_cts import directions_per_task, isotropic_common_and_task
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("fraction", [0.8, 0.5])
def test_golden(golden: Path, fraction: float) -> None:
    models, base = networks(golden, "f64")
    merged = merge(models, method="iso_cts", base=base, common_fraction=fraction)
    assert_golden(merged, golden / f"iso_cts_1.0_csf{fraction}_f64.safetensors", atol=1e-12)


def test_all_directions_common_is_iso_c() -> None:
    stream = torch.Generator().manual_seed(0)
    base, *models = ({"w": torch.randn(6, 9, generator=stream, dtype=torch.float64)} for _ in range(4))
    expected = IsoC().merged(models, base)["w"]
    torch.testing.assert_close(IsoCTS(common_fraction=1.0).merged(models, base)["w"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.8])
@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (8, 8)], ids=str)
def test_singular_values_are_equal(fraction: float, shape: tuple[int, int]) -> None:
    deltas_KOI = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    values = torch.linalg.svdvals(isotropic_common_and_task(deltas_KOI, fraction))
    torch.testing.assert_close(values, values.mean().expand_as(values), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("rank", "num_tasks", "fraction", "expected"),
    [(16, 3, 0.8, 1), (16, 3, 0.5, 3), (10, 3, 0.8, 1), (2, 3, 0.0, 0), (1, 3, 0.8, 0), (6, 3, 0.0, 2), (4, 1, 0.0, 4)],
)
def test_directions_of_a_task(rank: int, num_tasks: int, fraction: float, expected: int) -> None:
    assert directions_per_task(rank, num_tasks, fraction) == expected


@pytest.mark.parametrize("fraction", [-0.1, 1.2, float("nan")])
def test_bad_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(
        HyperparameterError, match=r"`common_fraction` should be in \[0, 1\]. Found `common_fraction = "
    ):
        IsoCTS(common_fraction=fraction)
