from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, networks
from transfuse.strategy.weight_fusion import TSVMerge, merge
from transfuse.strategy.weight_fusion.tsv import task_singular_vectors


@pytest.mark.parametrize(
    ("name", "scale", "tag", "atol"),
    [("tsvm_1.0", 1.0, "f64", 1e-12), ("tsvm_0.7", 0.7, "f64", 1e-12), ("tsvm_1.0", 1.0, "f32", 5e-6)],
)
def test_golden(golden: Path, name: str, scale: float, tag: str, atol: float) -> None:
    models, base = networks(golden, tag)
    merged = merge(models, method="tsv", base=base, scale=scale)
    assert_golden(merged, golden / f"{name}_{tag}.safetensors", atol=atol)


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5)], ids=str)
def test_one_task_is_returned(shape: tuple[int, int]) -> None:
    stream = torch.Generator().manual_seed(0)
    base, model = ({"w": torch.randn(shape, generator=stream, dtype=torch.float64)} for _ in range(2))
    torch.testing.assert_close(TSVMerge().merged([model], base)["w"], model["w"], rtol=0, atol=1e-12)


def test_tasks_in_orthogonal_subspaces_are_added() -> None:
    stream = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(8, 8, generator=stream, dtype=torch.float64)).Q for _ in range(2))
    tasks = [
        left[:, 4 * i : 4 * i + 4] @ torch.diag(torch.arange(1.0, 5.0).double()) @ right[4 * i : 4 * i + 4]
        for i in (0, 1)
    ]
    torch.testing.assert_close(task_singular_vectors(torch.stack(tasks)), tasks[0] + tasks[1], rtol=0, atol=1e-12)


def test_the_result_has_the_kept_singular_values_of_all_tasks() -> None:
    deltas_KOI = torch.randn(3, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kept = np.concatenate([np.linalg.svd(delta, compute_uv=False)[:3] for delta in deltas_KOI.numpy()])
    found = np.linalg.svd(task_singular_vectors(deltas_KOI).numpy(), compute_uv=False)
    np.testing.assert_allclose(found, np.sort(kept)[::-1], rtol=1e-10)


def test_equal_tasks_keep_their_leading_part() -> None:
    delta = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    expected = torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(task_singular_vectors(torch.stack([delta, delta])), expected, rtol=0, atol=1e-12)


def test_more_tasks_than_the_rank_keep_one_direction_each() -> None:
    rows = torch.eye(3, dtype=torch.float64)[:, None, :] * torch.tensor([3.0, 2.0, 1.0]).double()[:, None, None]
    # one row: U = (1, 1, 1), whose polar factor is U / sqrt(3)
    torch.testing.assert_close(task_singular_vectors(rows), rows.sum(0) / 3**0.5, rtol=0, atol=1e-12)
