from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.strategy.multi_task.golden import arrays, conflicting, sequences
from transfuse.strategy.multi_task import GradNorm
from transfuse.strategy.multi_task.gradnorm import logits_gradient, relative_rates, weights_of
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError

NAMES = ("a", "b", "c")


def at(losses: list[float], *, tasks: tuple[str, ...] = NAMES, first: tuple[float, ...] = (1.0, 2.0, 4.0)) -> StepInfo:
    return StepInfo(
        names=NAMES, tasks=tasks, losses_T=torch.tensor(losses, dtype=torch.float64), epoch=1, epoch_means=[first]
    )


def gramian(tasks: int = 3) -> torch.Tensor:
    gradients_TP = conflicting(tasks, spread=5.0)
    return gradients_TP @ gradients_TP.T


@pytest.mark.parametrize("record", sequences("gradnorm"), ids=lambda record: str(len(record["losses"])))
def test_weights_and_gradient_are_those_of_libmtl(record: dict[str, Any]) -> None:
    logits_T = np.array(record["logits"])
    names = tuple(map(str, range(len(logits_T))))
    losses_T = torch.tensor(record["losses"], dtype=torch.float64)
    step = StepInfo(names=names, tasks=names, losses_T=losses_T, epoch=1, epoch_means=[record["initial_losses"]])
    rates_T = relative_rates(step)
    assert rates_T is not None
    norms_T = np.linalg.norm(arrays()[record["jacobians"][0]], axis=1)
    np.testing.assert_allclose(weights_of(logits_T), record["weights"][0], rtol=1e-9)
    found_T = logits_gradient(logits_T, norms_T, rates_T, record["parameters"]["alpha"])
    np.testing.assert_allclose(found_T, record["logits_gradient"], rtol=1e-9)


def test_the_gradient_is_that_of_automatic_differentiation() -> None:
    logits_T = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64, requires_grad=True)
    norms_T = torch.tensor([1.0, 4.0, 0.5, 2.0], dtype=torch.float64)
    rates_T = torch.tensor([0.5, 1.5, 1.2, 0.8], dtype=torch.float64)
    lengths_T = 4 * logits_T.softmax(0) * norms_T
    (lengths_T - lengths_T.mean().detach() * rates_T**0.7).abs().sum().backward()
    found_T = logits_gradient(logits_T.detach().numpy(), norms_T.numpy(), rates_T.numpy(), 0.7)
    assert logits_T.grad is not None
    np.testing.assert_allclose(found_T, logits_T.grad.numpy(), rtol=1e-12)


def test_a_call_returns_the_weights_before_its_step_which_is_that_of_adam() -> None:
    rule, gramian_TT = GradNorm(learning_rate=0.1), gramian()
    state = rule.init(NAMES)
    norms_T = gramian_TT.diagonal().sqrt().numpy()
    logits_T = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits_T], lr=0.1, eps=0.0)
    for losses in ([1.0, 1.5, 0.5], [0.8, 1.6, 0.4], [0.7, 1.7, 0.1]):
        step = at(losses)
        rates_T = relative_rates(step)
        assert rates_T is not None
        now_T = logits_T.detach().numpy().copy()
        np.testing.assert_allclose(rule.weigh(gramian_TT, state, step).numpy(), weights_of(now_T), rtol=1e-12)
        logits_T.grad = torch.from_numpy(logits_gradient(now_T, norms_T / norms_T.mean(), rates_T, 1.5))
        adam.step()
        torch.testing.assert_close(state.tensors["logits"], logits_T.detach())
    assert state.tensors["logits"].abs().max() > 0.1


def test_weighted_norms_become_equal_for_alpha_0() -> None:
    rule, gramian_TT = GradNorm(alpha=0.0, learning_rate=0.01), gramian()
    state = rule.init(NAMES)
    for _ in range(600):
        weights_T = rule.weigh(gramian_TT, state, at([1.0, 1.0, 1.0]))
    lengths_T = weights_T * gramian_TT.diagonal().sqrt()
    torch.testing.assert_close(lengths_T / lengths_T.mean(), torch.ones(3, dtype=torch.float64), rtol=0, atol=0.05)


def test_a_task_that_learns_slowly_gains_weight() -> None:
    rule, gramian_TT = GradNorm(), torch.eye(3, dtype=torch.float64)
    state = rule.init(NAMES)
    for _ in range(20):
        weights_T = rule.weigh(gramian_TT, state, at([0.1, 0.2, 3.9]))
    assert weights_T.argmax() == 2
    assert weights_T.sum().item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    "step",
    [
        StepInfo(names=NAMES, tasks=NAMES),
        replace(at([1.0, 1.0, 2.0]), epoch_means=()),
        at([-1.0, 1.0, 2.0]),
        at([0.0, 0.0, 0.0]),
        at([1.0, 1.0, 2.0], first=(0.0, 1.0, 1.0)),
        at([1.0, 1.0, 2.0], first=(float("nan"), 1.0, 1.0)),
    ],
    ids=["no losses", "first epoch", "negative", "all 0", "nothing at first", "unlabelled at first"],
)
def test_where_rates_are_unknown_the_weights_stay_1(step: StepInfo) -> None:
    rule = GradNorm()
    state = rule.init(NAMES)
    for _ in range(2):
        assert rule.weigh(gramian(), state, step).tolist() == [1.0, 1.0, 1.0]


def test_absent_tasks_keep_their_logits() -> None:
    rule = GradNorm()
    state = rule.init(NAMES)
    rule.weigh(gramian(), state, at([1.0, 1.0, 1.0]))
    before = state.tensors
    weights_T = rule.weigh(gramian()[:2, :2], state, at([2.0, 1.0], tasks=("a", "b")))
    assert weights_T.sum().item() == pytest.approx(2.0)
    for name, tensor in state.tensors.items():
        assert tensor[2] == before[name][2]
        assert (tensor[:2] != before[name][:2]).any()


@pytest.mark.parametrize("factor", [1e-24, 1e24])
def test_the_logits_do_not_depend_on_the_gradients_scale(factor: float) -> None:
    rule = GradNorm()
    states = [rule.init(NAMES), rule.init(NAMES)]
    for losses in ([1.0, 1.5, 0.5], [0.8, 1.6, 0.4]):
        for state, scale in zip(states, (1.0, factor), strict=True):
            rule.weigh(scale * gramian(), state, at(losses))
    torch.testing.assert_close(states[0].tensors["logits"], states[1].tensors["logits"])


def test_the_last_layer_alone_may_be_shown() -> None:
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    assert GradNorm().shown(names) == names
    assert GradNorm(on="last").shown(names) == ("2.weight", "2.bias")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alpha": -0.5}, "`alpha` should be >= 0. Found `alpha = -0.5`"),
        ({"learning_rate": 0.0}, "`learning_rate` should be > 0"),
        ({"on": "first"}, "`on` should be all or last. Found `on = first`"),
    ],
)
def test_bad_values_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        GradNorm(**given)
