from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, conflicting, label, records
from transfuse.strategy.multi_task import GradDrop
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


def by_hand(jacobian_TP: np.ndarray, uniform_P: np.ndarray, leak: list[float]) -> np.ndarray:
    direction_P = np.zeros(jacobian_TP.shape[1])
    for p, column_T in enumerate(jacobian_TP.T):
        mass = np.abs(column_T).sum()
        share = 0.5 if mass == 0 else 0.5 * (1 + column_T.sum() / mass)
        for entry, kept in zip(column_T, leak, strict=True):
            stays = (share > uniform_P[p] and entry > 0) or (share < uniform_P[p] and entry < 0)
            direction_P[p] += (kept + (1 - kept) * stays) * entry
    return direction_P


@pytest.mark.parametrize("record", records("graddrop"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    found = transfuse.balance(
        arrays()[record["jacobian"]], method="graddrop", scale="published", uniform_P=arrays()[record["uniform"]]
    )
    assert found.weights_T is None
    np.testing.assert_allclose(found.direction_P.numpy(), arrays()[record["direction"]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("leak", [[0.0, 0.3, 1.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
def test_leaks(leak: list[float]) -> None:
    gradients_TP = conflicting(3)
    gradients_TP[:, 7] = 0.0
    uniform_P = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected_P = by_hand(gradients_TP.numpy(), uniform_P.numpy(), leak)
    found = transfuse.balance(gradients_TP, method="graddrop", uniform_P=uniform_P, leak=leak)
    np.testing.assert_allclose(found.direction_P.numpy(), expected_P, rtol=1e-12, atol=1e-14)
    if leak[0] == leak[1]:
        common = transfuse.balance(gradients_TP, method="graddrop", uniform_P=uniform_P, leak=leak[0])
        assert torch.equal(common.direction_P, found.direction_P)


def test_leaks_go_by_the_names_of_the_tasks_that_are_present() -> None:
    gradients_TP, rule = conflicting(2), GradDrop(leak={"a": 0.0, "b": 0.5, "c": 1.0})
    step = StepInfo(names=("a", "b", "c"), tasks=("a", "c"), uniform_P=torch.full((40,), 0.5))
    expected_P = by_hand(gradients_TP.numpy(), np.full(40, 0.5), [0.0, 1.0])
    np.testing.assert_allclose(rule.directing(gradients_TP, None, step).direction_P.numpy(), expected_P, rtol=1e-12)


def test_a_task_that_lets_everything_through_and_no_conflict_give_the_sum() -> None:
    gradients_TP = conflicting(3)
    total_P = gradients_TP.sum(0)
    torch.testing.assert_close(transfuse.balance(gradients_TP, method="graddrop", leak=1.0).direction_P, total_P)
    signs_P = torch.where(total_P > 0, 1.0, -1.0)
    found = transfuse.balance(gradients_TP.abs() * signs_P, method="graddrop")
    torch.testing.assert_close(found.direction_P, gradients_TP.abs().sum(0) * signs_P)


def test_draws_come_from_the_seed_and_from_nothing_else() -> None:
    gradients_TP = conflicting(3)
    before = torch.random.get_rng_state()
    one, same, other = (transfuse.balance(gradients_TP, method="graddrop", seed=s).direction_P for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_expected_sign_goes_by_the_mass() -> None:
    # p = 1/2 (1 + (3 - 1) / 4) = 3/4: in three of four draws 3, else -1
    step = StepInfo.anonymous(2)
    jacobian_TP = torch.tensor([[3.0], [-1.0]]).expand(2, 20000)
    found_P = GradDrop().directing(jacobian_TP, None, step).direction_P
    assert set(found_P.unique().tolist()) == {3.0, -1.0}
    assert (found_P > 0).double().mean().item() == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"leak": 1.5}, r"`leak` should be in \[0, 1\]. Found `leak = 1.5`"),
        ({"leak": {"a": -0.1}}, r"`leak` should be in \[0, 1\]"),
        ({"leak": [0.0, float("nan")]}, r"`leak` should be in \[0, 1\]"),
        ({"heads": "weighted"}, "`heads` should be own: multi_task/graddrop has no weights"),
        ({"every": 2}, "`every` should be 1 for multi_task/graddrop. Found `every = 2`"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        GradDrop(**given)


def test_the_number_of_leaks_is_that_of_the_tasks() -> None:
    with pytest.raises(HyperparameterError, match="`leak` should have 3 numbers, one a task. Found 2"):
        transfuse.balance(conflicting(3), method="graddrop", leak=[0.5, 0.5])
