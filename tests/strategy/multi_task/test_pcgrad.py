from __future__ import annotations

import numpy as np
import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, label, records
from transfuse.strategy.multi_task import PCGrad
from transfuse.types import HyperparameterError


@pytest.mark.parametrize("record", records("pcgrad"), ids=label)
def test_directions_are_those_of_torchjd(record) -> None:
    found = transfuse.balance(arrays()[record["jacobian"]], method="pcgrad", scale="published", orders=record["orders"])
    np.testing.assert_allclose(found.direction_P.numpy(), arrays()[record["direction"]], rtol=1e-12, atol=1e-12)


def test_two_tasks_in_closed_form() -> None:
    # d = g_1 (1 - cos n_2 / n_1) + g_2 (1 - cos n_1 / n_2) where they conflict
    gradients_TP = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    inner, (one, two) = gradients_TP[0] @ gradients_TP[1], gradients_TP.square().sum(1)
    expected = gradients_TP[0] * (1 - inner / one) + gradients_TP[1] * (1 - inner / two)
    torch.testing.assert_close(transfuse.balance(gradients_TP, method="pcgrad").direction_P, expected)


def test_without_conflict_it_is_the_sum() -> None:
    gradients_TP = torch.rand(5, 20, dtype=torch.float64)
    torch.testing.assert_close(transfuse.balance(gradients_TP, method="pcgrad").direction_P, gradients_TP.sum(0))


def test_a_random_order_comes_from_the_seed() -> None:
    gradients_TP = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    directions = [transfuse.balance(gradients_TP, method="pcgrad", seed=seed).direction_P for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(directions[0], directions[1])
    assert not all(torch.allclose(directions[0], each) for each in directions[2:])


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="`order` should be random or fixed. Found `order = sorted`"):
        PCGrad(order="sorted")
