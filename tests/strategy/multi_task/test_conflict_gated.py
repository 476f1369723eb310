from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import conflicting
from transfuse.strategy.multi_task import (
    MGDA,
    CAGrad,
    ConFIG,
    ConflictGated,
    GradVac,
    Grouped,
    JointSum,
    NashMTL,
    PCGrad,
    UPGrad,
)
from transfuse.strategy.multi_task.conflict_gated import smallest_cosine
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError

NAMES = ("0", "1")
STEP = StepInfo(names=NAMES, tasks=NAMES)


def pair(cosine: float) -> torch.Tensor:
    """The Gramian of two gradients of lengths 1 and 2."""
    return torch.tensor([[1.0, 2 * cosine], [2 * cosine, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "inner", [UPGrad(), MGDA(), NashMTL(), CAGrad(), ConFIG(), PCGrad()], ids=lambda rule: rule.name
)
def test_without_conflict_it_is_the_sum_else_the_inner_rule(inner: Any) -> None:
    rule = ConflictGated(inner=inner)
    assert rule.weigh(pair(0.3)).tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
    assert torch.equal(rule.weigh(pair(-0.3)), inner.weigh(pair(-0.3)))


def test_the_sum_takes_the_scale_of_the_inner_rule() -> None:
    assert ConflictGated(inner=MGDA(scale="published")).weigh(pair(0.3)).tolist() == [0.5, 0.5]
    assert ConflictGated(inner=PCGrad(scale="published")).weigh(pair(0.3)).tolist() == [1.0, 1.0]
    rule = ConflictGated(inner=MGDA(scale="sum_norm"))
    assert rule.weigh(pair(0.3)).tolist() == pytest.approx([1.0, 1.0])


def test_the_gate_opens_and_closes_with_the_mean() -> None:
    rule = ConflictGated(inner=PCGrad(), threshold=0.1, decay=0.75)
    state, mean, opened = rule.init(NAMES), None, []
    for cosine in (0.5, -0.5, -0.5, -0.5, -0.5, 0.9, 0.9):
        mean = cosine if mean is None else 0.75 * mean + 0.25 * cosine
        weights_T = rule.weigh(pair(cosine), state, STEP)
        open_now = mean < 0.1
        expected_T = PCGrad().weigh(pair(cosine)) if open_now else torch.ones(2, dtype=torch.float64)
        torch.testing.assert_close(weights_T, expected_T)
        opened.append(open_now)
    assert opened == [False, False, True, True, True, True, False]


def test_the_smallest_cosine_is_that_of_any_two() -> None:
    gradients_TP = conflicting(5, spread=1e3)
    units_TP = gradients_TP / gradients_TP.norm(dim=1, keepdim=True)
    expected = min(float(units_TP[i] @ units_TP[j]) for i in range(5) for j in range(i))
    assert smallest_cosine((gradients_TP @ gradients_TP.T).numpy()) == pytest.approx(expected, abs=1e-12)
    assert smallest_cosine(np.array([[3.0, -3.0], [-3.0, 3.0]])) == -1.0


def test_the_inner_state_rests_while_the_gate_is_closed() -> None:
    rule = ConflictGated(inner=GradVac(), decay=0.0)
    state = rule.init(NAMES)
    rule.weigh(pair(0.4), state, STEP)
    assert not state.tensors["targets"].any()
    rule.weigh(pair(-0.4), state, STEP)
    assert state.tensors["targets"][0, 1] < 0


def test_a_saved_state_goes_on_as_if_nothing_was() -> None:
    rule = ConflictGated(inner=GradVac(), decay=0.5)
    state, loaded = rule.init(NAMES), rule.init(NAMES)
    for cosine in (0.2, -0.5):
        rule.weigh(pair(cosine), state, STEP)
    loaded.load_state_dict(state.state_dict())
    for cosine in (-0.1, 0.3, -0.6):
        orders = StepInfo(names=NAMES, tasks=NAMES, orders=[[1], [0]])
        assert torch.equal(rule.weigh(pair(cosine), state, orders), rule.weigh(pair(cosine), loaded, orders))


def test_layers_have_gates_of_their_own() -> None:
    names = ("0.weight", "2.weight")
    assert ConflictGated(inner=Grouped()).partition(names) == Grouped().partition(names)
    assert Grouped(inner=ConflictGated()).partition(names) == Grouped().partition(names)


def test_it_is_found_by_its_name() -> None:
    gradients_TP = conflicting(3)
    found = transfuse.balance(gradients_TP, method="conflict_gated", inner=MGDA(), threshold=1.0)
    torch.testing.assert_close(found.direction_P, transfuse.balance(gradients_TP, method="mgda").direction_P)
    found = transfuse.balance(gradients_TP, method="conflict_gated", inner=MGDA(), threshold=-1.0)
    torch.testing.assert_close(found.direction_P, gradients_TP.sum(0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": 1.5}, r"`threshold` should be in \[-1, 1\]. Found `threshold = 1.5`"),
        ({"decay": 1.0}, r"`decay` should be in \[0, 1\). Found `decay = 1.0`"),
        ({"inner": JointSum()}, "`inner` should be a rule that weights by inner products"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        ConflictGated(**given)
