from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, conflicting, label, records, sequences
from transfuse.strategy.multi_task import GradVac
from transfuse.strategy.multi_task.gradvac import vaccinate
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


def of_tasks(orders: list[list[int]]) -> list[list[int]]:
    """The records count positions among the other tasks."""
    others = [[task for task in range(len(orders)) if task != own] for own in range(len(orders))]
    return [[others[own][at] for at in order] for own, order in enumerate(orders)]


@pytest.mark.parametrize("record", records("gradvac"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    jacobian_TP, orders = arrays()[record["jacobian"]], of_tasks(record["orders"])
    expected_P = arrays()[record["direction"]]
    # with the peer's absolute eps, then with ours
    none = np.zeros((len(jacobian_TP), len(jacobian_TP)))
    coefficients_TT, _ = vaccinate(jacobian_TP @ jacobian_TP.T, none, orders, beta=0.5, eps=1e-8)
    np.testing.assert_allclose(coefficients_TT.sum(0) @ jacobian_TP, expected_P, rtol=1e-9, atol=1e-9)
    found = transfuse.balance(jacobian_TP, method="gradvac", scale="published", orders=orders)
    np.testing.assert_allclose(found.direction_P.numpy(), expected_P, rtol=0, atol=1e-7 * np.linalg.norm(expected_P))


@pytest.mark.parametrize("record", sequences("gradvac"), ids=lambda record: str(len(record["weights"][0])))
def test_targets_are_carried_as_by_torchjd(record: dict[str, Any]) -> None:
    tasks = len(record["weights"][0])
    targets_TT, rule = np.zeros((tasks, tasks)), GradVac(scale="published")
    names = StepInfo.anonymous(tasks).names
    state = rule.init(names)
    for key, weights, orders in zip(record["jacobians"], record["weights"], record["orders"], strict=True):
        gramian_TT = arrays()[key] @ arrays()[key].T
        coefficients_TT, targets_TT = vaccinate(gramian_TT, targets_TT, of_tasks(orders), beta=0.5, eps=1e-8)
        np.testing.assert_allclose(coefficients_TT.sum(0), weights, rtol=1e-9)
        step = StepInfo(names=names, tasks=names, orders=of_tasks(orders))
        np.testing.assert_allclose(rule.weigh(torch.from_numpy(gramian_TT), state, step).numpy(), weights, rtol=1e-6)
    np.testing.assert_allclose(state.tensors["targets"].numpy(), targets_TT, rtol=1e-6, atol=1e-9)


def test_a_turned_gradient_has_the_target_cosine() -> None:
    gradients_TP = conflicting(2, spread=30.0).numpy()
    targets_TT = np.array([[0.0, 0.6], [-1.0, 0.0]])
    coefficients_TT, moved_TT = vaccinate(gradients_TP @ gradients_TP.T, targets_TT, [[1], [0]], beta=0.25, eps=1e-300)
    turned_P, other_P = coefficients_TT[0] @ gradients_TP, gradients_TP[1]
    assert turned_P @ other_P / np.linalg.norm(turned_P) / np.linalg.norm(other_P) == pytest.approx(0.6, abs=1e-12)
    # the other task's target is below every cosine: nothing to turn
    np.testing.assert_array_equal(coefficients_TT[1], [0.0, 1.0])
    phi = gradients_TP[0] @ other_P / np.linalg.norm(gradients_TP[0]) / np.linalg.norm(other_P)
    np.testing.assert_allclose(moved_TT[[0, 1], [1, 0]], [0.75 * 0.6 + 0.25 * phi, -0.75 + 0.25 * phi])


def test_without_targets_and_conflict_it_is_the_sum_and_with_targets_of_0_it_is_pcgrad() -> None:
    gradients_TP, orders = conflicting(3), [[1, 2], [2, 0], [0, 1]]
    one = transfuse.balance(gradients_TP, method="gradvac", orders=orders, eps=1e-300, beta=0.0)
    other = transfuse.balance(gradients_TP, method="pcgrad", orders=orders)
    torch.testing.assert_close(one.direction_P, other.direction_P)
    torch.testing.assert_close(
        transfuse.balance(gradients_TP.abs(), method="gradvac").direction_P, gradients_TP.abs().sum(0)
    )


def test_absent_tasks_keep_their_targets() -> None:
    gradients_TP, rule = conflicting(3), GradVac()
    names = ("a", "b", "c")
    state = rule.init(names)
    rule.weigh(gradients_TP @ gradients_TP.T, state, StepInfo(names=names, tasks=names))
    before = state.tensors["targets"]
    some = gradients_TP[[0, 2]].abs()
    rule.weigh(some @ some.T, state, StepInfo(names=names, tasks=("a", "c")))
    changed = state.tensors["targets"] != before
    assert changed.nonzero().tolist() == [[0, 2], [2, 0]]


def test_layers_have_groups_of_their_own() -> None:
    names = ["0.weight", "0.bias", "2.weight"]
    assert GradVac().partition(names) == {"": tuple(names)}
    assert GradVac(group="layer").partition(names) == {"0": ("0.weight", "0.bias"), "2": ("2.weight",)}


def test_opposite_gradients_cancel() -> None:
    gradients_TP = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    assert transfuse.balance(gradients_TP, method="gradvac").direction_P.norm() < 1e-7


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 1.5}, r"`beta` should be in \[0, 1\]. Found `beta = 1.5`"),
        ({"eps": 0.0}, "`eps` should be > 0"),
        ({"eps": math.nan}, "`eps` should be > 0"),
        ({"group": "block"}, "`group` should be all or layer. Found `group = block`"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        GradVac(**given)
