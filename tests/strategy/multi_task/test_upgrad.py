from __future__ import annotations

from typing import Any

import pytest

import transfuse
from tests.strategy.multi_task.golden import assert_golden, conflicting, label, records


@pytest.mark.parametrize("record", records("upgrad"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 1e-9)


@pytest.mark.parametrize("spread", [1.0, 1e2, 1e4])
def test_no_task_gets_worse(spread: float) -> None:
    for seed in range(5):
        gradients_TP = conflicting(5, spread=spread, seed=seed)
        direction_P = transfuse.balance(gradients_TP, method="upgrad").direction_P
        cosines_T = gradients_TP @ direction_P / (gradients_TP.norm(dim=1) * direction_P.norm())
        assert cosines_T.min() >= -1e-9
