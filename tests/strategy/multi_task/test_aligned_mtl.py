from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import assert_golden, conflicting, label, records


@pytest.mark.parametrize("record", records("aligned_mtl"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 1e-9)


def test_aligned_gradients_are_orthogonal_and_of_one_length() -> None:
    gradients_TP = conflicting(4, spread=10.0)
    values_T = torch.linalg.eigvalsh(gradients_TP @ gradients_TP.T)
    rows = [
        transfuse.balance(gradients_TP, method="aligned_mtl", scale="published", preference=row.tolist()).direction_P
        for row in torch.eye(4)
    ]
    aligned_TP = torch.stack(rows)
    expected_TT = values_T[0] * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(aligned_TP @ aligned_TP.T, expected_TT, rtol=1e-9, atol=1e-9)
