from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from transfuse.alignment import zip_units

GOLDEN = Path(__file__).parents[1] / "golden" / "weight_fusion"


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_correlation(num_models: int, num_units: int, seed: int, shared: float = 1.0) -> Tensor:
    """Of units that share a signal with one unit of each other model."""
    samples_UN = torch.randn(num_units, 12, generator=stream(seed), dtype=torch.float64)
    noise_KUN = torch.randn(num_models, num_units, 12, generator=stream(seed + 1), dtype=torch.float64)
    return torch.corrcoef((shared * samples_UN + noise_KUN).flatten(0, 1))


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.125), (0.0001, 0.0)])
def test_golden_matchings(alpha: float, beta: float) -> None:
    content = np.load(GOLDEN / "zipit_matching.npz")
    covariance = torch.from_numpy(content["in_cov"]).double()
    deviation = covariance.diagonal().sqrt()
    groups_KU = zip_units(covariance / torch.outer(deviation, deviation), 2, alpha=alpha, beta=beta)
    unmerge = torch.nn.functional.one_hot(groups_KU.flatten(), 10).double().numpy()
    expected = f"out_match_tensors_zipit_a{alpha}_b{beta}"
    np.testing.assert_array_equal(unmerge, content[f"{expected}_unmerge"])
    np.testing.assert_allclose((unmerge / (unmerge.sum(0) + 1e-5)).T, content[f"{expected}_merge"], atol=1e-6)


def by_hand(correlation: np.ndarray, num_models: int, alpha: float, beta: float) -> list[list[int]]:
    """The same from sets of units, each round from scratch: a pair's correlation and its discounts are looked up."""
    num_units = len(correlation) // num_models
    groups = [[unit] for unit in range(len(correlation))]
    near = {(first, second): correlation[first, second] for first in range(len(groups)) for second in range(first)}
    near |= {(second, first): value for (first, second), value in near.items()}
    budgets = [int((len(groups) - num_units) // num_models * beta + 1e-4)] * num_models
    barred = {pair for pair in near if pair[0] // num_units == pair[1] // num_units and budgets[0] == 0}
    while len(groups) > num_units:
        alive = [group[0] for group in groups]
        pairs = [(first, second) for first in alive for second in alive if first < second]
        open_pairs = [pair for pair in pairs if pair not in barred] or pairs
        first, second = max(open_pairs, key=lambda pair: near[pair])
        kept, gone = (next(group for group in groups if group[0] == unit) for unit in (first, second))
        kept += gone
        groups.remove(gone)
        for other in (group[0] for group in groups if group[0] != first):
            value = min(near[first, other], near[second, other]) * (alpha if len(kept) >= num_models else 1)
            near[first, other] = near[other, first] = value
            if {(first, other), (second, other)} & barred:
                barred |= {(first, other), (other, first)}
        model = first // num_units
        if model == second // num_units:
            budgets[model] -= 1
            if budgets[model] <= 0:
                own = [group[0] for group in groups if group[0] // num_units == model]
                barred |= {(one, other) for one in own for other in own}
    return sorted(groups)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.125), (0.0001, 0.0), (0.5, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("num_models", [2, 3, 4])
def test_equals_sets_of_units_merged_one_by_one(num_models: int, alpha: float, beta: float) -> None:
    for seed in range(6):
        correlation = random_correlation(num_models, 17, seed, shared=0.5)
        groups_J = zip_units(correlation, num_models, alpha=alpha, beta=beta).flatten().tolist()
        expected = by_hand(correlation.numpy(), num_models, alpha, beta)
        assert [groups_J[unit] for group in expected for unit in group] == [
            index for index, group in enumerate(expected) for _ in group
        ]


@pytest.mark.parametrize("num_models", [1, 2, 3, 5])
def test_as_many_groups_are_left_as_a_model_has_units(num_models: int) -> None:
    for seed, beta in enumerate((0.0, 0.2, 1.0)):
        groups_KU = zip_units(random_correlation(num_models, 9, seed), num_models, beta=beta)
        assert groups_KU.shape == (num_models, 9) and groups_KU.unique().tolist() == list(range(9))
        firsts = [groups_KU.flatten().tolist().index(group) for group in range(9)]
        assert firsts == sorted(firsts)
    assert num_models > 1 or groups_KU.tolist() == [list(range(9))]


@pytest.mark.parametrize("num_models", [2, 3, 5])
def test_copies_find_each_other_among_units_that_are_alike(num_models: int) -> None:
    samples_UN = torch.randn(16, 40, generator=stream(), dtype=torch.float64)
    samples_UN += 3 * torch.randn(1, 40, generator=stream(1), dtype=torch.float64)  # all correlate at about 0.9
    orders = [torch.randperm(16, generator=stream(seed)) for seed in range(num_models)]
    groups_KU = zip_units(torch.corrcoef(torch.cat([samples_UN[order] for order in orders])), num_models)
    for order, groups_U in zip(orders, groups_KU, strict=True):
        assert torch.equal(groups_U[order.argsort()], groups_KU[0][orders[0].argsort()])


def within(groups_KU: Tensor) -> list[int]:
    """How many units of each model share their group with an earlier one."""
    return [len(groups_U) - len(groups_U.unique()) for groups_U in groups_KU]


def test_beta_is_how_many_units_of_a_model_may_be_merged() -> None:
    # in each model pairs of units that are alike, and across models hardly anything
    base_UN = torch.randn(2, 10, 60, generator=stream(), dtype=torch.float64)
    samples_JN = base_UN.repeat_interleave(2, dim=1) + 0.1 * torch.randn(2, 20, 60, generator=stream(1)).double()
    correlation = torch.corrcoef(samples_JN.flatten(0, 1))
    for beta, merged in ((0.0, 0), (0.2, 2), (0.5, 5), (1.0, 10)):
        assert within(zip_units(correlation, 2, alpha=0.0001, beta=beta)) == [merged, merged]


def test_a_small_alpha_keeps_groups_small() -> None:
    sizes = []
    for alpha in (0.0001, 1.0):
        groups = zip_units(random_correlation(2, 40, 3, shared=0.7), 2, alpha=alpha, beta=1.0)
        sizes.append(int(groups.flatten().bincount().max()))
    assert sizes[0] == 2 < sizes[1]


def test_the_correlation_is_not_changed() -> None:
    correlation = random_correlation(2, 6, 0)
    before = correlation.clone()
    zip_units(correlation, 2)
    assert torch.equal(correlation, before)
