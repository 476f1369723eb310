from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import FAMO
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", weightings("famo"), ids=lambda record: str(len(record["steps"][0]["before"])))
def test_steps_are_those_of_peers(record: dict[str, Any]) -> None:
    given = record["parameters"]
    weighting = FAMO(scale="published", learning_rate=given["lr"], weight_decay=given["weight_decay"], eps=given["eps"])
    step = StepInfo.anonymous(len(record["steps"][0]["before"]))
    state = weighting.init(step.names)
    for row in record["steps"]:
        before_T = torch.tensor(row["before"], dtype=torch.float64, requires_grad=True)
        value = weighting.combine(before_T, state, step)
        (gradient_T,) = torch.autograd.grad(value, before_T)
        assert value.item() == pytest.approx(row["value"], rel=1e-9)
        assert gradient_T.tolist() == pytest.approx(row["gradient"], rel=1e-9)
        weighting.after_step(before_T.detach(), torch.tensor(row["after"], dtype=torch.float64), state, step)
        assert state.x_T.tolist() == pytest.approx(row["logits_after"], rel=1e-9)


def test_equal_rates_leave_the_logits() -> None:
    weighting, step = FAMO(eps=1e-300), StepInfo.anonymous(3)  # `eps` would make small losses fall less
    state, before_T = weighting.init(step.names), torch.tensor([1.0, 20.0, 0.3], dtype=torch.float64)
    weighting.after_step(before_T, 0.9 * before_T, state, step)
    assert state.x_T.abs().max() < 0.025 * 1e-3  # Adam divides rounding by 1e-8


def test_absent_tasks_rest() -> None:
    weighting = FAMO()
    state = weighting.init(("a", "b", "c"))
    step = StepInfo(names=("a", "b", "c"), tasks=("a", "c"))
    weighting.after_step(torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.9]), state, step)
    assert state.x_T[1] == 0
    assert state.x_T[0] < 0 < state.x_T[2]


@pytest.mark.parametrize("given", [{"learning_rate": 0.0}, {"eps": 0.0}, {"weight_decay": -1.0}])
def test_bad_values_are_told(given: dict[str, Any]) -> None:
    with pytest.raises(HyperparameterError, match=f"`{next(iter(given))}` should be"):
        FAMO(**given)
