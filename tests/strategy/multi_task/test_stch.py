from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import SmoothTchebycheff
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", weightings("stch"), ids=lambda record: str(record["parameters"]))
def test_values_and_gradients_are_those_of_peers(record: dict[str, Any]) -> None:
    losses_T = torch.tensor(record["losses"], dtype=torch.float64, requires_grad=True)
    value = SmoothTchebycheff(scale="published", on="loss", **record["parameters"]).combine(losses_T)
    (gradient_T,) = torch.autograd.grad(value, losses_T)
    assert value.item() == pytest.approx(record["value"], rel=1e-9)
    assert gradient_T.tolist() == pytest.approx(record["gradient"], rel=1e-9, abs=1e-15)


def test_little_smoothing_is_the_maximum_and_much_the_mean() -> None:
    losses_T = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64, requires_grad=True)
    for mu, expected in ((1e-6, [0.0, 1.0, 0.0]), (1e6, [1 / 3] * 3)):
        value = SmoothTchebycheff(scale="published", on="loss", mu=mu).combine(losses_T)
        (gradient_T,) = torch.autograd.grad(value, losses_T)
        assert gradient_T.tolist() == pytest.approx(expected, abs=1e-5)


def test_after_the_warm_up_losses_are_measured_by_its_mean() -> None:
    names = ("a", "b")
    losses_T = torch.tensor([1.0, 50.0], dtype=torch.float64, requires_grad=True)
    weights = []
    for means in ([], [[2.0, 100.0]]):
        step = StepInfo(names=names, tasks=names, epoch=len(means), epoch_means=means)
        value = SmoothTchebycheff().combine(losses_T, None, step)
        weights.append(torch.autograd.grad(value, losses_T)[0].tolist())
    # both halved: equal shares of the maximum, so 1 / L_t each; in the warm-up the sum of logarithms
    assert weights[0] == pytest.approx([1.0, 0.02])
    assert weights[1] == pytest.approx([1.0, 0.02])


@pytest.mark.parametrize("given", [{"mu": 0.0}, {"on": "rank"}, {"warmup_epochs": 0}])
def test_bad_values_are_told(given: dict[str, Any]) -> None:
    with pytest.raises(HyperparameterError, match=f"`{next(iter(given))}` should be"):
        SmoothTchebycheff(**given)
