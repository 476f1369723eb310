from __future__ import annotations

from typing import Any

import pytest
import torch

import transfuse
from tests.strategy.multi_task.golden import arrays, assert_golden, conflicting, label, records


@pytest.mark.parametrize("record", records("mgda"), ids=label)
def test_directions_are_those_of_torchjd(record: dict[str, Any]) -> None:
    assert_golden(record, 5e-5)


def test_the_minimum_norm_point_is_at_least_as_short_as_any_other() -> None:
    gradients_TP = conflicting(4)
    found = transfuse.balance(gradients_TP, method="mgda", scale="published")
    length = found.direction_P.norm()
    mixtures = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((200,)) @ gradients_TP
    assert (length <= torch.cat([gradients_TP, mixtures]).norm(dim=1) * (1 + 1e-9)).all()
    assert (gradients_TP @ found.direction_P).min() >= length**2 * (1 - 1e-8)


@pytest.mark.parametrize("record", records("mgda"), ids=label)
def test_the_exact_point_is_no_longer_than_the_peers(record: dict[str, Any]) -> None:
    found = transfuse.balance(arrays()[record["jacobian"]], method="mgda", scale="published")
    assert found.direction_P.norm().item() <= record["norm"] * (1 + 1e-9)


def test_normalized_gradients_of_orthogonal_tasks_count_alike() -> None:
    gradients_TP = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    found = transfuse.balance(gradients_TP, method="mgda", scale="published", normalize="l2")
    torch.testing.assert_close(found.direction_P, torch.tensor([0.5, 0.5]))
