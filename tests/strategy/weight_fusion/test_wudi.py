from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, networks
from transfuse.strategy.weight_fusion import WUDI, merge
from transfuse.strategy.weight_fusion.wudi import descended_interference, interference, least_interference
from transfuse.types import HyperparameterError

SHAPES = [(6, 6), (4, 20), (20, 4), (1, 5), (5, 1)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def tasks(shape: tuple[int, int]) -> torch.Tensor:
    return 0.1 * torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def test_golden(golden: Path) -> None:
    models, base = networks(golden, "f64")
    assert_golden(merge(models, method="wudi", base=base), golden / "wudi_300_f64.safetensors", atol=1e-12)


@shapes
def test_the_exact_solution_has_no_gradient_and_the_least_objective(shape: tuple[int, int]) -> None:
    deltas_KOI = tasks(shape)
    exact = least_interference(deltas_KOI).requires_grad_()
    objective = interference(exact, deltas_KOI)
    (gradient,) = torch.autograd.grad(objective, exact)
    assert float(gradient.norm()) < 1e-8
    for found in (descended_interference(deltas_KOI, lr=1e-3, steps=300), deltas_KOI.sum(0), deltas_KOI.mean(0)):
        assert float(objective.detach()) <= float(interference(found, deltas_KOI)) + 1e-15


@shapes
def test_the_exact_solution_is_the_closed_form(shape: tuple[int, int]) -> None:
    deltas = tasks(shape).numpy()
    moments = [delta.T @ delta / (delta**2).sum() for delta in deltas]
    left = sum(delta @ moment for delta, moment in zip(deltas, moments, strict=True))
    expected = left @ np.linalg.pinv(sum(moments), rcond=1e-12)
    np.testing.assert_allclose(least_interference(tasks(shape)).numpy(), expected, atol=1e-9)


def test_adam_goes_down_from_the_sum() -> None:
    deltas_KOI = tasks((6, 6))
    objectives = [
        float(interference(descended_interference(deltas_KOI, lr=1e-3, steps=steps), deltas_KOI))
        for steps in (0, 10, 100)
    ]
    assert objectives[0] == pytest.approx(float(interference(deltas_KOI.sum(0), deltas_KOI)), rel=1e-12)
    assert objectives[0] > objectives[1] > objectives[2]


def test_the_objective_is_the_papers() -> None:
    deltas = tasks((4, 6)).numpy()
    merged = deltas.sum(0)
    expected = sum(np.linalg.norm((merged - delta) @ delta.T) ** 2 / np.linalg.norm(delta) ** 2 for delta in deltas)
    assert float(interference(torch.from_numpy(merged), tasks((4, 6)))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"solver": "sgd"}, "`solver` should be exact or adam. Found `solver = sgd`."),
        ({"lr": 0.0}, "`lr` should be a number > 0. Found `lr = 0.0`."),
        ({"steps": -1}, "`steps` should be a whole number >= 0. Found `steps = -1`."),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(HyperparameterError) as error:
        WUDI(**fields)
    assert str(error.value) == message
