from __future__ import annotations

import pytest
import torch

import transfuse
from transfuse.strategy.multi_task import LogSum
from transfuse.strategy.multi_task.loss_weighting import InvalidLossError
from transfuse.types import HyperparameterError


def test_the_weights_are_the_inverse_losses() -> None:
    found = transfuse.balance(torch.eye(2), method="log_sum", losses_T=[4.0, 0.5])
    assert found.weights_T is not None
    assert found.weights_T.tolist() == pytest.approx([0.25, 2.0])


def test_bad_values_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`eps` should be > 0"):
        LogSum(eps=0.0)
    with pytest.raises(InvalidLossError, match=r"Found -2 for task 0"):
        transfuse.balance(torch.eye(2), method="log_sum", losses_T=[-2.0, 1.0])
