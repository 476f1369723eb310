from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import ImpartialLoss, UncertaintyWeighting
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", weightings("imtl_l"), ids=lambda record: str(len(record["losses"])))
def test_values_and_gradients_are_those_of_peers(record: dict[str, Any]) -> None:
    weighting = ImpartialLoss()
    losses_T = torch.tensor(record["losses"], dtype=torch.float64, requires_grad=True)
    state = weighting.init(tuple(map(str, range(len(losses_T))))).double()
    state.s_T.data = torch.tensor(record["parameters"]["log_scale"], dtype=torch.float64)
    value = weighting.combine(losses_T, state)
    gradient_T, own_T = torch.autograd.grad(value, [losses_T, state.s_T])
    assert value.item() == pytest.approx(record["value"], rel=1e-12)
    assert gradient_T.tolist() == pytest.approx(record["gradient"], rel=1e-12)
    assert own_T.tolist() == pytest.approx(record["parameter_gradient"], rel=1e-9)


def test_it_is_twice_the_form_of_kendall_with_the_other_sign() -> None:
    losses_T = torch.tensor([3.0, 0.2], dtype=torch.float64)
    impartial, kendall = ImpartialLoss(), UncertaintyWeighting(scale="published")
    state, other = impartial.init(("a", "b")).double(), kendall.init(("a", "b")).double()
    state.s_T.data = torch.tensor([0.7, -1.1], dtype=torch.float64)
    other.s_T.data = -state.s_T.data
    assert impartial.combine(losses_T, state).item() == pytest.approx(2 * kendall.combine(losses_T, other).item())


def test_bad_values_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`learning_rate` should be > 0"):
        ImpartialLoss(learning_rate=0.0)
