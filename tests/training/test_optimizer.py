from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from transfuse.training import Training
from transfuse.training.optimizer import group, lr_at, make_optimizer, restore, set_lr
from transfuse.types import HyperparameterError


def test_cosine_falls_from_the_peak_to_nothing_over_the_whole_budget() -> None:
    settings = Training(lr=0.1)
    assert lr_at(settings, 0, 100) == pytest.approx(0.1)
    assert lr_at(settings, 50, 100) == pytest.approx(0.05)
    assert lr_at(settings, 99, 100) == pytest.approx(0.05 * (1 + math.cos(0.99 * math.pi)))
    assert lr_at(settings, 100, 100) == pytest.approx(0.0, abs=1e-12)


def test_each_cycle_of_a_cosine_begins_at_the_peak_and_falls_to_the_low_end() -> None:
    settings = Training(lr=0.5, lr_low=0.1, cycles=3)
    rates = [lr_at(settings, step, 12) for step in range(12)]
    assert rates[:4] == pytest.approx([0.1 + 0.2 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])
    assert rates[4:8] == rates[:4] == rates[8:]
    assert lr_at(settings, 12, 12) == pytest.approx(0.1)


def test_a_triangle_climbs_from_the_low_end_to_the_peak_and_back() -> None:
    settings = Training(lr=0.5, lr_low=0.1, cycles=2, schedule="triangular")
    rates = [lr_at(settings, step, 16) for step in range(16)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2] * 2)


def test_cycles_share_what_warmup_leaves() -> None:
    settings = Training(lr=0.4, warmup=0.2, cycles=2)
    rates = [lr_at(settings, step, 10) for step in range(10)]
    assert rates[:2] == pytest.approx([0.2, 0.4])
    assert rates[2] == rates[6] == 0.4 and rates[4] == pytest.approx(0.2)


def test_cycles_that_do_not_divide_the_budget_begin_in_the_step_after_their_exact_place() -> None:
    settings = Training(lr=1.0, cycles=3, schedule="triangular")
    # u = 3 step / 10 mod 1
    assert [lr_at(settings, step, 10) for step in range(5)] == pytest.approx([0.0, 0.6, 0.8, 0.2, 0.4])


def test_ranges_of_cycles() -> None:
    with pytest.raises(HyperparameterError, match="`cycles` should be >= 1. Found `cycles = 0`"):
        Training(cycles=0)
    with pytest.raises(HyperparameterError, match=r"`lr_low` should be in \[0, lr = 0.1\]. Found `lr_low = 0.2`"):
        Training(lr=0.1, lr_low=0.2)
    with pytest.raises(HyperparameterError, match="`schedule` should be cosine, triangular or constant"):
        Training(schedule="sawtooth")


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
