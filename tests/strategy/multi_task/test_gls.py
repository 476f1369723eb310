from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import GeometricLoss
from transfuse.strategy.multi_task.loss_weighting import InvalidLossError


@pytest.mark.parametrize("record", weightings("gls"), ids=lambda record: str(len(record["losses"])))
def test_values_and_gradients_are_those_of_peers(record: dict[str, Any]) -> None:
    losses_T = torch.tensor(record["losses"], dtype=torch.float64, requires_grad=True)
    value = GeometricLoss(scale="published").combine(losses_T)
    (gradient_T,) = torch.autograd.grad(value, losses_T)
    assert value.item() == pytest.approx(record["value"], rel=1e-12)
    assert gradient_T.tolist() == pytest.approx(record["gradient"], rel=1e-12)


def test_many_small_losses_do_not_underflow() -> None:
    value = GeometricLoss(scale="published", eps=1e-30).combine(torch.full((50,), 1e-10, dtype=torch.float64))
    assert value.item() == pytest.approx(1e-10)


def test_a_negative_loss_is_told() -> None:
    with pytest.raises(InvalidLossError, match=r"Found -1 for task 1"):
        transfuse.balance(torch.eye(2), method="gls", losses_T=[1.0, -1.0])
