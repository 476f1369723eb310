from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from transfuse.strategy.multi_task import JointSum, LossWeighting
from transfuse.training import BaseModule, Fit, MultiTaskModule, Training
from transfuse.training.step import StepInfo
from transfuse.types import Split, Task

Make = Callable[..., nn.Module]
Examples = Callable[..., Split]


class Learned(LossWeighting):
    """sum_t exp(-s_t) L_t / 2 + s_t / 2, s learned."""

    learning_rate_of_state = 0.1

    def init(self, tasks: tuple[str, ...]) -> nn.Module:
        return nn.ParameterList([torch.zeros(len(tasks))])

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        assert state is not None
        (s_T,) = state.parameters()
        return ((-s_T).exp() * losses_T / 2 + s_T / 2).sum()


class Random(LossWeighting):
    """Random weights; notes what it is told."""

    told: ClassVar[list[tuple[int, int, tuple[str, ...], int]]] = []

    def published(self, losses_T: Tensor, state: nn.Module | None, step: StepInfo) -> Tensor:
        self.told.append((step.step, step.epoch, step.tasks, len(step.epoch_means)))
        return (torch.randn(len(losses_T), generator=step.generator).softmax(0) * losses_T).sum()


def test_the_sum_is_plain_training(cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples) -> None:
    settings = Training(epochs=2, batch_size=8)
    results = [
        cpu(module, make_split(30), make_split(9, 1), settings=settings, seed=0, name="tasks")
        for module in (
            MultiTaskModule(make_network(tasks), tasks, settings, JointSum()),
            BaseModule(make_network(tasks), tasks, settings),
        )
    ]
    torch.testing.assert_close(
        dict(results[0].network.state_dict()), dict(results[1].network.state_dict()), rtol=1e-5, atol=1e-6
    )


def test_what_a_weighting_learns_moves_without_decay_and_stays_out_of_the_network(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    settings = Training(epochs=None, steps=1, batch_size=30, weight_decay=0.5, optimizer="sgd", momentum=0.0)
    module = MultiTaskModule(make_network(tasks), tasks, settings, Learned())
    result = cpu(module, make_split(30), make_split(9, 1), settings=settings, seed=0, name="tasks")
    assert module.weighting_state is not None
    (s_T,) = module.weighting_state.parameters()
    losses_T = torch.tensor([result.history[0][f"train/{task.name}/loss"] for task in tasks])
    torch.testing.assert_close(s_T.detach(), -0.1 * (1 - losses_T) / 2, rtol=1e-4, atol=1e-6)  # ds_t = (1 - L_t) / 2
    assert result.network.state_dict().keys() == make_network(tasks).state_dict().keys()


def test_a_weighting_is_told_step_epoch_and_means(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples
) -> None:
    weighting, settings = Random(probe=0), Training(epochs=2, batch_size=10)
    weighting.told.clear()
    module = MultiTaskModule(make_network(tasks), tasks, settings, weighting)
    result = cpu(module, make_split(20), make_split(9, 1), settings=settings, seed=0, name="tasks")
    names = ("class", "labels", "value")
    assert weighting.told == [(0, 0, names, 0), (1, 0, names, 0), (2, 1, names, 1), (3, 1, names, 1)]
    first = result.history[0]
    assert module.progress.epoch_means[0] == [first[f"train/{name}/loss"] for name in names]


@pytest.mark.parametrize("weighting", [Random, Learned])
def test_pausing_keeps_the_weightings_state_and_stream(
    cpu: Fit, tasks: tuple[Task, ...], make_network: Make, make_split: Examples, weighting: type[Random | Learned]
) -> None:
    settings, states = Training(epochs=2, batch_size=8), []
    for pauses in ((), (1, 5)):
        module = MultiTaskModule(make_network(tasks), tasks, settings, weighting())
        fitting = cpu.begin(module, make_split(30), make_split(9, 1), settings=settings, seed=0, name="tasks")
        for step in (*pauses, fitting.total_steps):
            fitting.advance(step)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
