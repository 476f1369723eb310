from __future__ import annotations

from typing import Any

import pytest
import torch

from transfuse.strategy.multi_task import ScheduledWeights
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError

START, END = {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 2.0}


@pytest.mark.parametrize(
    ("shape", "epoch", "expected"),
    [
        ("linear", 0, [1.0, 0.0]),
        ("linear", 1, [0.75, 0.5]),
        ("linear", 9, [0.0, 2.0]),
        ("cosine", 1, [0.853553, 0.292893]),
        ("cosine", 2, [0.5, 1.0]),
    ],
)
def test_weights_go_from_one_set_to_the_other(shape: str, epoch: int, expected: list[float]) -> None:
    weighting = ScheduledWeights(start=START, end=END, epochs=4, shape=shape)
    losses_T = torch.ones(2, dtype=torch.float64, requires_grad=True)
    step = StepInfo(names=("a", "b"), tasks=("a", "b"), epoch=epoch)
    (weights_T,) = torch.autograd.grad(weighting.combine(losses_T, None, step), losses_T)
    assert weights_T.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("given", [{"start": None}, {"end": {"a": -1.0}}, {"epochs": 0}, {"shape": "step"}])
def test_bad_values_are_told(given: dict[str, Any]) -> None:
    with pytest.raises(HyperparameterError, match=f"`{next(iter(given))}` should"):
        ScheduledWeights(**{"start": START, "end": END, **given})
