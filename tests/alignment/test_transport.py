from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from transfuse.alignment import TransportError, sinkhorn
from transfuse.alignment.transport import spread


def costs(size: int, seed: int = 0) -> Tensor:
    stream = np.random.default_rng(seed)
    found = cdist(stream.normal(size=(size, 5)), stream.normal(size=(size, 5)))
    return torch.from_numpy(found / found.mean())


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("regularization", [1e8, 1.0, 0.1, 0.01, 0.003])
def test_marginals_are_met_and_the_plan_is_optimal(size: int, regularization: float) -> None:
    cost = costs(size, seed=size)
    found = sinkhorn(cost, regularization)
    assert found.dtype == torch.float64
    ones = torch.ones(size, dtype=torch.float64)
    torch.testing.assert_close(found.sum(0), ones, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sum(1), ones, rtol=0, atol=2e-9)
    # optimal: log T + C / r = u_i + v_j, wherever logarithms are told from those of 0
    kept = found > 1e-250
    if bool(kept.all()):
        dual = found.log() + cost / regularization
        dual = dual - dual.mean(0) - dual.mean(1, keepdim=True) + dual.mean()
        torch.testing.assert_close(dual, torch.zeros_like(dual), rtol=0, atol=1e-9 * max(1.0, 1 / regularization))


def test_equals_plain_sinkhorn_scaling() -> None:
    cost = costs(12).numpy()
    kernel = np.exp(-cost / 0.2)
    row, column = np.ones(12), np.ones(12)
    for _ in range(5000):
        row = 1 / (kernel @ column)
        column = 1 / (kernel.T @ row)
    np.testing.assert_allclose(sinkhorn(torch.from_numpy(cost), 0.2).numpy(), row[:, None] * kernel * column, atol=1e-9)


def test_the_limits_are_the_assignment_and_the_uniform_plan() -> None:
    cost = costs(10)
    rows, columns = linear_sum_assignment(cost.numpy())
    assignment = torch.zeros(10, 10, dtype=torch.float64)
    assignment[rows, columns] = 1.0
    gaps = [float((sinkhorn(cost, r) - assignment).abs().max()) for r in (0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-9)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-2] < 1e-6 and gaps[-1] == 0.0
    torch.testing.assert_close(sinkhorn(cost, 1e9), torch.full_like(cost, 0.1), rtol=0, atol=1e-8)
    # the cost of transport falls with the regularization, down to the assignment's
    spent = [float((sinkhorn(cost, r) * cost).sum()) for r in (10.0, 0.1, 0.01, 1e-3)]
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == pytest.approx(float(cost.numpy()[rows, columns].sum()), abs=1e-3)


def test_what_is_too_small_is_told() -> None:
    with pytest.raises(TransportError, match=r"`regularization = 0.0003` is too small .*Did you mean regularization=0"):
        sinkhorn(costs(40, seed=1), 3e-4)


def test_maps_act_on_every_axis() -> None:
    stream = np.random.default_rng(0)
    weight, one, other = stream.normal(size=(3, 4, 2)), stream.random((3, 3)), stream.random((4, 4))
    found = spread(
        torch.from_numpy(weight), ["a", "b", None], {"a": torch.from_numpy(one), "b": torch.from_numpy(other)}
    )
    np.testing.assert_allclose(found.numpy(), np.einsum("ij,kl,jlm->ikm", one, other, weight), rtol=1e-12)
