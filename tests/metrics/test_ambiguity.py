from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from transfuse.metrics import log_loss_ambiguity, squared_error_ambiguity

WEIGHTS = [None, torch.tensor([0.5, 0.0, 0.3, 0.2]), torch.tensor([1.0, 0.0, 0.0, 0.0])]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("weights_M", WEIGHTS)
def test_the_squared_error_falls_by_the_ambiguity(weights_M: Tensor | None) -> None:
    values_MND, targets_ND = 3 * random(4, 50, 2), random(50, 2, seed=1)
    found = squared_error_ambiguity(values_MND, targets_ND, weights_M)
    assert found.members - found.pooled == pytest.approx(found.ambiguity, abs=1e-10)
    weights = (torch.ones(4) if weights_M is None else weights_M).double()
    weights /= weights.sum()
    average_ND = torch.einsum("m,mnd->nd", weights, values_MND)
    assert found.pooled == pytest.approx(float((average_ND - targets_ND).square().mean()), abs=1e-12)
    errors_M = (values_MND - targets_ND).square().mean((1, 2))
    assert found.members == pytest.approx(float(weights @ errors_M), abs=1e-12)
    assert found.ambiguity >= 0


@pytest.mark.parametrize("weights_M", WEIGHTS)
def test_the_log_loss_of_the_geometric_pool_falls_by_the_ambiguity(weights_M: Tensor | None) -> None:
    log_probs_MEO = (4 * random(4, 60, 5)).log_softmax(2)
    outcomes_E = torch.arange(60) % 5
    found = log_loss_ambiguity(log_probs_MEO, outcomes_E, weights_M)
    assert found.members - found.pooled == pytest.approx(found.ambiguity, abs=1e-10)
    weights = (torch.ones(4) if weights_M is None else weights_M).double()
    weights /= weights.sum()
    losses_M = torch.stack([cross_entropy(log_probs_EO, outcomes_E) for log_probs_EO in log_probs_MEO])
    assert found.members == pytest.approx(float(weights @ losses_M), abs=1e-12)
    pooled = cross_entropy(torch.einsum("m,meo->eo", weights, log_probs_MEO), outcomes_E)
    assert found.pooled == pytest.approx(float(pooled), abs=1e-12)
    assert found.ambiguity >= -1e-12


def test_members_that_do_not_differ_have_none() -> None:
    values_MND, log_probs_MEO = random(1, 20, 1).expand(3, -1, -1), random(1, 20, 3).log_softmax(2).expand(3, -1, -1)
    assert squared_error_ambiguity(values_MND, random(20, 1, seed=2)).ambiguity == pytest.approx(0, abs=1e-12)
    assert log_loss_ambiguity(log_probs_MEO, torch.arange(20) % 3).ambiguity == pytest.approx(0, abs=1e-12)


def test_unlabelled_targets_take_no_part() -> None:
    values_MND, targets_ND = random(3, 10, 2), random(10, 2, seed=1)
    targets_ND[4:, 1] = torch.nan
    found = squared_error_ambiguity(values_MND, targets_ND)
    known = ~targets_ND.isnan()
    expected = squared_error_ambiguity(values_MND[:, known][..., None], targets_ND[known][:, None])
    assert found == expected
