from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.strategy.multi_task.golden import weightings
from transfuse.strategy.multi_task import DynamicWeightAverage
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", weightings("dwa"), ids=lambda record: str(len(record["epochs"][0]["weights"])))
def test_weights_of_each_epoch_are_those_of_peers(record: dict[str, Any]) -> None:
    weighting = DynamicWeightAverage()
    means: list[list[float]] = []
    for epoch in record["epochs"]:
        names = tuple(map(str, range(len(epoch["weights"]))))
        losses_T = torch.ones(len(names), dtype=torch.float64, requires_grad=True)
        step = StepInfo(names=names, tasks=names, epoch=len(means), epoch_means=means)
        (weights_T,) = torch.autograd.grad(weighting.combine(losses_T, None, step), losses_T)
        assert weights_T.tolist() == pytest.approx(epoch["weights"], rel=1e-9)
        means.append(torch.tensor(epoch["batch_losses"], dtype=torch.float64).mean(0).tolist())


def test_a_bad_temperature_is_told() -> None:
    with pytest.raises(HyperparameterError, match="`temperature` should be > 0"):
        DynamicWeightAverage(temperature=0.0)
