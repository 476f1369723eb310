from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import assert_golden, conflicting, label, records


@pytest.mark.parametrize("record", records("config"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 1e-9)


def test_impartial_directions_have_equal_cosines() -> None:
    gradients_TP = conflicting(4, spread=1e3)
    direction_P = transfuse.balance(gradients_TP, method="config").direction_P
    cosines_T = gradients_TP @ direction_P / gradients_TP.norm(dim=1)
    torch.testing.assert_close(cosines_T, cosines_T[:1].expand(4), rtol=1e-9, atol=0)
