from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.strategy.multi_task.golden import arrays, conflicting, sequences
from transfuse.strategy.multi_task import ExcessMTL
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError

NAMES = ("a", "b", "c")
EVERYONE = StepInfo(names=NAMES, tasks=NAMES)


def jacobians(count: int) -> list[torch.Tensor]:
    return [conflicting(3, spread=3.0, seed=seed) / 10 for seed in range(count)]


@pytest.mark.parametrize("record", sequences("excess_mtl"), ids=lambda record: str(len(record["weights"][0])))
def test_weights_are_those_of_torchjd(record: dict[str, Any]) -> None:
    rule = ExcessMTL(scale="published", **record["parameters"])
    step = StepInfo.anonymous(len(record["weights"][0]))
    state = rule.init(step.names)
    for key, weights in zip(record["jacobians"], record["weights"], strict=True):
        jacobian_TP = torch.from_numpy(arrays()[key])
        found = rule.directing(jacobian_TP, state, step)
        assert found.weights_T is not None
        np.testing.assert_allclose(found.weights_T.numpy(), weights, rtol=1e-9)
        torch.testing.assert_close(found.direction_P, found.weights_T @ jacobian_TP)


def test_after_the_warm_up_excesses_are_relative_to_it() -> None:
    rule = ExcessMTL(scale="published", step_size=0.5, warmup_steps=2)
    state = rule.init(NAMES)
    squares, excesses, weights_T = np.zeros((3, 40)), [], np.full(3, 1 / 3)
    for count, jacobian_TP in enumerate(jacobians(5)):
        found = rule.directing(jacobian_TP, state, EVERYONE)
        squares += jacobian_TP.numpy() ** 2
        excesses.append((jacobian_TP.numpy() ** 2 / np.sqrt(squares + 1e-7)).sum(1))
        if count >= 2:
            weights_T = weights_T * np.exp(0.5 * excesses[-1] / (np.mean(excesses[:2], axis=0) + 1e-7))
            weights_T /= weights_T.sum()
        assert found.weights_T is not None
        np.testing.assert_allclose(found.weights_T.numpy(), weights_T, rtol=1e-9)


def test_huge_excesses_do_not_overflow() -> None:
    found = ExcessMTL().directing(torch.tensor([[1e15, 0.0], [0.0, 1e10]]))
    assert found.weights_T is not None
    assert found.weights_T.tolist() == [2.0, 0.0]
    assert found.direction_P.isfinite().all()


def test_absent_tasks_keep_what_they_have() -> None:
    rule, (first, second, third) = ExcessMTL(scale="published"), jacobians(3)
    state = rule.init(NAMES)
    before_T = rule.directing(first, state, EVERYONE).weights_T
    assert before_T is not None
    squares = state.tensors["squares"].clone()
    found = rule.directing(second[[2, 0]], state, StepInfo(names=NAMES, tasks=("c", "a")))
    assert found.weights_T is not None
    assert found.weights_T.sum().item() == pytest.approx(1.0)
    assert torch.equal(state.tensors["squares"][1], squares[1])
    torch.testing.assert_close(state.tensors["squares"][2], squares[2] + second[2].square())
    assert state.tensors["logits"].exp().sum().item() == pytest.approx(1.0)
    assert state.tensors["logits"][1].exp().item() == pytest.approx(before_T[1].item())
    assert rule.directing(third, state, EVERYONE).direction_P.isfinite().all()


def test_a_gradient_that_is_not_finite_leaves_the_state_alone() -> None:
    rule, (first, second) = ExcessMTL(), jacobians(2)
    states = [rule.init(NAMES), rule.init(NAMES)]
    for state in states:
        rule.directing(first, state, EVERYONE)
    broken = second.clone()
    broken[1, 3] = float("inf")
    assert not rule.directing(broken, states[0], EVERYONE).direction_P.isfinite().all()
    one, other = (rule.directing(second, state, EVERYONE).direction_P for state in states)
    assert torch.equal(one, other)


def test_a_saved_state_goes_on_as_if_nothing_was() -> None:
    rule, rows = ExcessMTL(warmup_steps=1), jacobians(4)
    state, loaded = rule.init(NAMES), rule.init(NAMES)
    for jacobian_TP in rows[:2]:
        rule.directing(jacobian_TP, state, EVERYONE)
    loaded.load_state_dict(state.state_dict())
    for jacobian_TP in rows[2:]:
        one, other = (rule.directing(jacobian_TP, each, EVERYONE).direction_P for each in (state, loaded))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step_size": 0.0}, "`step_size` should be > 0. Found `step_size = 0.0`"),
        ({"warmup_steps": -1}, "`warmup_steps` should be >= 0"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        ExcessMTL(**given)
