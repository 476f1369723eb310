from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transfuse.training import Training
from transfuse.training.optimizer import group, lr_at, make_optimizer, restore, set_lr


def test_cosine_falls_from_the_peak_to_nothing_over_the_whole_budget() -> None:
    settings = Training(lr=0.1)
    assert lr_at(settings, 0, 100) == pytest.approx(0.1)
    assert lr_at(settings, 50, 100) == pytest.approx(0.05)
    assert lr_at(settings, 99, 100) == pytest.approx(0.05 * (1 + math.cos(0.99 * math.pi)))
    assert lr_at(settings, 100, 100) == pytest.approx(0.0, abs=1e-12)


def test_warmup_grows_linearly_to_the_peak() -> None:
    settings = Training(lr=0.1, warmup=0.2, schedule="constant")
    assert [lr_at(settings, step, 20) for step in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_a_budget_of_warmup_alone_does_not_divide_by_nothing() -> None:
    settings = Training(lr=0.1, warmup=0.9)
    assert lr_at(settings, 0, 1) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_fused_steps_equal_torch_steps(name: str, decay: float) -> None:
    weights = [nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2)]
    settings = Training(optimizer=name, lr=0.05, weight_decay=decay, momentum=0.8)
    ours = make_optimizer(settings, [group([weights[0]], weight_decay=decay)], fused=True)
    plain = {
        "adam": lambda: torch.optim.Adam([weights[1]], lr=0.05, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW([weights[1]], lr=0.05, weight_decay=decay),
        "sgd": lambda: torch.optim.SGD([weights[1]], lr=0.05, momentum=0.8, weight_decay=decay),
    }[name]()
    for _ in range(5):
        for weight, optimizer in zip(weights, (ours, plain), strict=True):
            weight.grad = weight.detach() ** 3 + 0.1
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)


def test_each_group_gets_its_own_learning_rate_and_keeps_it_when_moments_are_restored() -> None:
    def make(factor: float) -> torch.optim.Optimizer:
        first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        groups = [group([first], weight_decay=0.0), group([second], weight_decay=0.1, lr_factor=factor)]
        return make_optimizer(Training(), groups, fused=True)

    old, new = make(0.5), make(3.0)
    for one in old.param_groups:
        one["params"][0].grad = torch.ones(2)
    old.step()
    restore(new, old.state_dict())
    set_lr(new, 0.2)
    assert [one["lr"] for one in new.param_groups] == pytest.approx([0.2, 0.6])
    assert [one["weight_decay"] for one in new.param_groups] == [0.0, 0.1]
    moments = [new.state[one["params"][0]]["exp_avg"] for one in new.param_groups]
    assert torch.equal(moments[0], torch.full((2,), 0.1))
