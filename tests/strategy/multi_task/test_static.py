from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import StaticWeights
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", weightings("static"), ids=lambda record: str(len(record["losses"])))
def test_values_and_gradients_are_those_of_peers(record: dict[str, Any]) -> None:
    losses_T = torch.tensor(record["losses"], dtype=torch.float64, requires_grad=True)
    value = StaticWeights(**record["parameters"], normalize=False).combine(losses_T)
    (gradient_T,) = torch.autograd.grad(value, losses_T)
    assert value.item() == pytest.approx(record["value"], rel=1e-9)
    assert gradient_T.tolist() == pytest.approx(record["gradient"], rel=1e-9)


@pytest.mark.parametrize("weights", [None, [0.0, 0.0], [1.0, -1.0], {"a": float("nan")}])
def test_bad_weights_are_told(weights: Any) -> None:
    with pytest.raises(HyperparameterError, match="`weights` should"):
        StaticWeights(weights=weights)


def test_weights_are_scaled_to_sum_to_the_number_of_tasks() -> None:
    found = transfuse.balance(torch.eye(2), method="static", losses_T=[1.0, 1.0], weights=[1.0, 3.0])
    assert found.weights_T is not None
    assert found.weights_T.tolist() == [0.5, 1.5]
