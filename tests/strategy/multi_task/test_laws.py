from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import conflicting
from transfuse.types import HyperparameterError

RULES = ("aligned_mtl", "cagrad", "config", "dualproj", "fairgrad", "imtl_g", "mgda", "nash_mtl", "pcgrad", "upgrad")
RULES = (*RULES, "conflict_gated", "graddrop", "gradnorm", "gradvac", "grouped")
OF_THEIR_OWN_LENGTH = ("db_mtl", "excess_mtl")  # the first step is shorter, or depends on the gradients' scale


@pytest.mark.parametrize("tasks", [2, 3, 5, 10])
@pytest.mark.parametrize("rule", [*RULES, *OF_THEIR_OWN_LENGTH])
def test_permuting_tasks_leaves_the_direction(rule: str, tasks: int) -> None:
    gradients_TP, order = conflicting(tasks), torch.arange(tasks - 1, -1, -1)
    orders = [list(range(tasks))] * tasks
    mapped = [[tasks - 1 - other for other in row] for row in orders]
    direct = transfuse.balance(gradients_TP, method=rule, orders=orders)
    permuted = transfuse.balance(gradients_TP[order], method=rule, orders=mapped)
    torch.testing.assert_close(permuted.direction_P, direct.direction_P, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_one_task_gets_its_gradient(rule: str) -> None:
    gradients_TP = conflicting(1)
    torch.testing.assert_close(transfuse.balance(gradients_TP, method=rule).direction_P, gradients_TP[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_the_direction_does_not_depend_on_the_gradients_scale(rule: str, factor: float) -> None:
    one = transfuse.balance(conflicting(3), method=rule).direction_P
    other = transfuse.balance(factor * conflicting(3), method=rule).direction_P
    torch.testing.assert_close(other / other.norm(), one / one.norm(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rule", [*RULES, *OF_THEIR_OWN_LENGTH])
@pytest.mark.parametrize("kind", ["duplicate", "opposite", "dependent", "zero"])
def test_singular_gradients_give_a_finite_direction(rule: str, kind: str) -> None:
    gradients_TP = conflicting(3)
    gradients_TP[2] = {
        "duplicate": gradients_TP[0],
        "opposite": -gradients_TP[0],
        "dependent": gradients_TP[0] + gradients_TP[1],
        "zero": torch.zeros(40, dtype=torch.float64),
    }[kind]
    before = gradients_TP.clone()
    assert transfuse.balance(gradients_TP, method=rule).direction_P.isfinite().all()
    assert torch.equal(gradients_TP, before)


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        ("fairgrad", {"alpha": 0.0}, "`alpha` should be > 0"),
        ("upgrad", {"reg_eps": -1.0}, "`reg_eps` should be >= 0"),
        ("dualproj", {"preference": [1.0, -1.0]}, "`preference` should be finite and >= 0"),
        ("config", {"preference": [0.0, 0.0]}, "not all 0"),
        ("aligned_mtl", {"scale_mode": "max"}, "`scale_mode` should be"),
        ("mgda", {"normalize": "l1"}, "`normalize` should be"),
        ("imtl_g", {"heads": "mine"}, "`heads` should be own or weighted"),
        ("upgrad", {"every": 0}, "`every` should be >= 1"),
    ],
)
def test_bad_values_are_told(rule: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        transfuse.balance(conflicting(2), method=rule, **given)
