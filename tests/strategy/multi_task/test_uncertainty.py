from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import UncertaintyWeighting


@pytest.mark.parametrize("record", weightings("uncertainty"), ids=lambda record: str(len(record["losses"])))
def test_values_and_gradients_are_those_of_peers(record: dict[str, Any]) -> None:
    weighting = UncertaintyWeighting(scale="published")
    losses_T = torch.tensor(record["losses"], dtype=torch.float64, requires_grad=True)
    state = weighting.init(tuple(map(str, range(len(losses_T))))).double()
    (given,) = (value for value in record["parameters"].values() if isinstance(value, list))
    state.s_T.data = torch.tensor(given, dtype=torch.float64)
    value = weighting.combine(losses_T, state)
    gradient_T, own_T = torch.autograd.grad(value, [losses_T, state.s_T])
    assert value.item() == pytest.approx(record["value"], rel=1e-12)
    assert gradient_T.tolist() == pytest.approx(record["gradient"], rel=1e-12)
    assert own_T.tolist() == pytest.approx(record["parameter_gradient"], rel=1e-9)


def test_at_the_start_it_is_the_sum() -> None:
    found = transfuse.balance(torch.eye(2), method="uncertainty", losses_T=[3.0, 0.5])
    assert found.weights_T is not None
    assert found.weights_T.tolist() == [1.0, 1.0]
