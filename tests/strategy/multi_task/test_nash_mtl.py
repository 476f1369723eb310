from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, conflicting, label, records
from transfuse.strategy.multi_task import FairGrad, GradientRule, NashMTL
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", records("nash_mtl"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    found = transfuse.balance(
        arrays()[record["jacobian"]], method="nash_mtl", scale="published", **record["parameters"]
    )
    expected_P = torch.from_numpy(arrays()[record["direction"]])
    assert (found.direction_P - expected_P).norm() <= 1e-6 * expected_P.norm()


@pytest.mark.parametrize("spread", [1.0, 1e2, 1e4])
def test_weights_solve_their_equations(spread: float) -> None:
    gradients_TP = conflicting(5, spread=spread)
    found = transfuse.balance(gradients_TP, method="nash_mtl", scale="published", max_norm=None)
    assert found.weights_T is not None
    products_T = found.weights_T * (gradients_TP @ found.direction_P)
    torch.testing.assert_close(products_T, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-8)


def test_the_scale_of_a_loss_does_not_matter() -> None:
    gradients_TP = conflicting(3)
    factors_T = torch.tensor([[1.0], [100.0], [1e-3]], dtype=torch.float64)
    one, other = (
        transfuse.balance(each, method="nash_mtl").direction_P for each in (gradients_TP, factors_T * gradients_TP)
    )
    torch.testing.assert_close(other / other.norm(), one / one.norm(), rtol=1e-8, atol=1e-10)


def test_orthogonal_gradients_get_equal_lengths() -> None:
    gramian_TT = torch.diag(torch.tensor([1.0, 16.0, 1e-4], dtype=torch.float64))
    weights_T = NashMTL(scale="published", max_norm=None).weigh(gramian_TT)
    torch.testing.assert_close(weights_T, torch.tensor([1.0, 0.25, 100.0], dtype=torch.float64))


def test_the_longest_direction_is_bounded_as_published_only() -> None:
    gramian_TT = conflicting(4) @ conflicting(4).T
    limited_T, free_T = (NashMTL(scale="published", max_norm=norm).weigh(gramian_TT) for norm in (0.5, None))
    # w^T G w = T at the solution
    assert (free_T @ gramian_TT @ free_T).sqrt().item() == pytest.approx(2.0)
    torch.testing.assert_close(limited_T, free_T / 4)
    assert torch.equal(NashMTL(max_norm=0.5).weigh(gramian_TT), NashMTL(max_norm=None).weigh(gramian_TT))


def test_between_two_solutions_the_last_one_serves_the_same_tasks() -> None:
    rule, names = NashMTL(update_every=3), ("a", "b", "c")
    state, found = rule.init(names), []
    gramians = [conflicting(3, seed=seed) @ conflicting(3, seed=seed).T for seed in range(4)]
    for count, gramian_TT in enumerate(gramians):
        found.append(rule.weigh(gramian_TT, state, StepInfo(names=names, tasks=names, step=count)))
    assert torch.equal(found[1], found[0]) and torch.equal(found[2], found[0])
    assert torch.equal(found[3], NashMTL().weigh(gramians[3]))
    # a task that the last solution did not know asks for a new one
    state = rule.init(names)
    rule.weigh(gramians[0][:2, :2], state, StepInfo(names=names, tasks=("a", "b")))
    everyone = StepInfo(names=names, tasks=names, step=1)
    assert torch.equal(rule.weigh(gramians[1], state, everyone), NashMTL().weigh(gramians[1]))


@pytest.mark.parametrize("rule", [NashMTL(), FairGrad(alpha=2.0)])
def test_opposite_gradients_have_no_solution(rule: GradientRule) -> None:
    found = rule.weighing(torch.tensor([[1.0, -2.0], [-2.0, 4.0]]))
    assert found.failed
    assert found.weights_T.tolist() == [1.0, 1.0]


def test_bad_values_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`max_norm` should be > 0 or null"):
        transfuse.balance(conflicting(2), method="nash_mtl", max_norm=0.0)
    with pytest.raises(HyperparameterError, match="`update_every` should be >= 1"):
        transfuse.balance(conflicting(2), method="nash_mtl", update_every=0)
