from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, conflicting, label, records
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


def test_bad_values_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`max_norm` should be > 0 or null"):
        transfuse.balance(conflicting(2), method="nash_mtl", max_norm=0.0)
    with pytest.raises(HyperparameterError, match="`update_every` should be >= 1"):
        transfuse.balance(conflicting(2), method="nash_mtl", update_every=0)
