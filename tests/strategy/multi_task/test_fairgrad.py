from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import assert_golden, conflicting, label, records


@pytest.mark.parametrize("record", records("fairgrad"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 1e-7)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_solve_their_equations(alpha: float) -> None:
    gradients_TP = conflicting(5, spread=1e2)
    found = transfuse.balance(gradients_TP, method="fairgrad", scale="published", alpha=alpha)
    assert found.weights_T is not None
    pull_T = gradients_TP @ found.direction_P
    torch.testing.assert_close(found.weights_T * pull_T**alpha, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-8)


def test_alpha_1_is_nash_and_towards_0_it_is_the_sum() -> None:
    gradients_TP = conflicting(4, spread=3.0)
    nash = transfuse.balance(gradients_TP, method="nash_mtl", scale="published", max_norm=None).direction_P
    torch.testing.assert_close(
        transfuse.balance(gradients_TP, method="fairgrad", scale="published").direction_P, nash, rtol=1e-8, atol=1e-10
    )
    almost = transfuse.balance(gradients_TP.abs(), method="fairgrad", alpha=1e-3)
    assert almost.weights_T is not None
    torch.testing.assert_close(almost.weights_T, torch.ones(4, dtype=torch.float64), rtol=0, atol=0.01)
