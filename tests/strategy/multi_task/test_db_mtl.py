from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, conflicting, sequences
from transfuse.strategy.multi_task import DBMTL
from transfuse.strategy.multi_task.db_mtl import stretches
from transfuse.strategy.multi_task.loss_weighting import InvalidLossError
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError

NAMES = ("a", "b", "c")
EVERYONE = StepInfo(names=NAMES, tasks=NAMES)


@pytest.mark.parametrize("record", sequences("db_mtl"), ids=lambda record: record["directions"])
def test_directions_are_those_of_libmtl(record: dict[str, Any]) -> None:
    rule = DBMTL(beta=record["parameters"]["beta"], sigma=record["parameters"]["beta_sigma"])
    expected = arrays()[record["directions"]]
    rows = [arrays()[key] for key in record["jacobians"]]
    step = StepInfo.anonymous(len(rows[0]))
    state = rule.init(step.names)
    for jacobian_TP, expected_P in zip(rows, expected, strict=True):
        found_P = rule.directing(torch.from_numpy(jacobian_TP), state, step).direction_P.numpy()
        # the peer's 1e-8 beside a norm is absolute, ours relative
        assert np.linalg.norm(found_P - expected_P) <= 3e-8 * np.linalg.norm(expected_P)


def test_all_averages_get_the_length_of_the_longest() -> None:
    gradients_TP = conflicting(3, spread=1e3)
    expected_P = (gradients_TP / gradients_TP.norm(dim=1, keepdim=True)).sum(0) * gradients_TP.norm(dim=1).max()
    found_P = transfuse.balance(gradients_TP, method="db_mtl", beta=0.0).direction_P
    assert (found_P - expected_P).norm() <= 1e-4 * expected_P.norm()  # 1e-8 beside norms 1e-3 of the longest
    torch.testing.assert_close(transfuse.balance(gradients_TP, method="db_mtl").direction_P, 0.1 * found_P)


def test_rows_become_gradients_of_logarithms() -> None:
    gradients_TP, losses_T = conflicting(3), torch.tensor([0.5, 3.0, 0.01], dtype=torch.float64)
    direct = transfuse.balance(gradients_TP / (losses_T + 1e-8)[:, None], method="db_mtl").direction_P
    torch.testing.assert_close(transfuse.balance(gradients_TP, method="db_mtl", losses_T=losses_T).direction_P, direct)
    # the scale of a loss, and so of its gradient, does not matter
    scaled = transfuse.balance(1000 * gradients_TP, method="db_mtl", losses_T=1000 * losses_T).direction_P
    torch.testing.assert_close(scaled, direct, rtol=1e-5, atol=1e-9)


def test_a_corrected_average_of_equal_gradients_is_that_gradient() -> None:
    gradients_TP, rule = conflicting(3), DBMTL(bias_correction=True, beta=0.9, sigma=0.5)
    state = rule.init(NAMES)
    expected_P = transfuse.balance(gradients_TP, method="db_mtl", beta=0.0).direction_P
    for _ in range(4):
        torch.testing.assert_close(rule.directing(gradients_TP, state, EVERYONE).direction_P, expected_P)


def test_the_average_forgets_with_the_steps() -> None:
    rule = DBMTL(beta=0.5, sigma=1.0)
    state = rule.init(NAMES)
    expected = torch.zeros(3, 40, dtype=torch.float64)
    for count in range(1, 5):
        jacobian_TP = conflicting(3, seed=count)
        expected = jacobian_TP + 0.5 / count * (expected - jacobian_TP)
        rule.directing(jacobian_TP, state, EVERYONE)
        torch.testing.assert_close(state.tensors["averages"], expected)


def test_absent_tasks_keep_their_average() -> None:
    rule, gradients_TP = DBMTL(bias_correction=True), conflicting(3)
    state = rule.init(NAMES)
    rule.directing(gradients_TP, state, EVERYONE)
    averages, kept = state.tensors["averages"].clone(), state.tensors["kept"].clone()
    found = rule.directing(gradients_TP[:2], state, StepInfo(names=NAMES, tasks=("c", "a")))
    assert found.direction_P.isfinite().all()
    assert torch.equal(state.tensors["averages"][1], averages[1])
    assert state.tensors["kept"][1] == kept[1]
    assert (state.tensors["averages"][[0, 2]] != averages[[0, 2]]).any(dim=1).all()


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_direction_does_not_depend_on_the_gradients_scale(factor: float) -> None:
    one = transfuse.balance(conflicting(3), method="db_mtl").direction_P
    torch.testing.assert_close(transfuse.balance(factor * conflicting(3), method="db_mtl").direction_P / factor, one)


def test_vanishing_gradients() -> None:
    assert stretches(torch.zeros(2)).tolist() == [1.0, 1.0]
    gradients_TP = conflicting(2)
    gradients_TP[1] = 0.0
    torch.testing.assert_close(
        transfuse.balance(gradients_TP, method="db_mtl", beta=0.0).direction_P, gradients_TP[0], rtol=1e-7, atol=0
    )
    assert not transfuse.balance(torch.zeros(2, 5), method="db_mtl").direction_P.any()


def test_a_negative_loss_is_told() -> None:
    with pytest.raises(InvalidLossError, match="db_mtl takes logarithms of losses. Found -0.5 for task 1"):
        transfuse.balance(conflicting(2), method="db_mtl", losses_T=[1.0, -0.5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 1.0}, r"`beta` should be in \[0, 1\). Found `beta = 1.0`"),
        ({"sigma": -1.0}, "`sigma` should be >= 0"),
        ({"transform": "log"}, "`transform` should be none: db_mtl takes logarithms itself"),
        ({"heads": "weighted"}, "`heads` should be own: multi_task/db_mtl has no weights"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        DBMTL(**given)
