"""Groups of units that respond alike, across models and within them: the matching of ZipIt.

Dimensions in tensor names: K models, U units of each, J = K U units of all, model by model.
"""

from __future__ import annotations

import torch
from torch import Tensor


def zip_units(correlation_JJ: Tensor, num_models: int, *, alpha: float = 0.3, beta: float = 0.125) -> Tensor:
    """Merges the two groups that correlate most, until as many are left as a model has units.

    At first each unit is a group. The correlation of a merged group with another is the smaller one of its two
    parts', times `alpha` from K units on. A group belongs to the model of its first unit; merges of two groups of one
    model are within it. Where no pair is left that the budgets allow (K > 2), the most correlated one is merged.

    Args:
        correlation_JJ: of the units, symmetric, finite.
        num_models: K.
        alpha: in (0, 1]; the smaller, the fewer groups of more than K units, and of fewer.
        beta: in [0, 1]; merges within a model are at most beta (K - 1) U / K, rounded down.

    Returns:
        (K, U) whole numbers: the group of each unit, 0 to U - 1, in the order of the groups' first units.

    Example:
        >>> across = torch.tensor([[0.2, 0.9], [0.8, 0.3]])
        >>> like = torch.cat([torch.cat([torch.eye(2), across.T]), torch.cat([across, torch.eye(2)])], dim=1)
        >>> zip_units(like, 2)
        tensor([[0, 1],
                [1, 0]])

    Reference:
        Stoica et al. 2024, "ZipIt! Merging Models from Different Tasks without Training", 2305.03053, section
        4.3, with the defaults of the authors' code. Differs from the code, which discounts groups of two units for any
        K, so that copies of three models need not find each other, and permits one merge within a model where its
        budget is 0.
    """
    num_all = len(correlation_JJ)
    removed = num_all - num_all // num_models
    near_JJ = correlation_JJ.double().clone().fill_diagonal_(-torch.inf)
    model_J = torch.arange(num_all) // (num_all // num_models)
    group_J, budgets = torch.arange(num_all), [int(removed // num_models * beta + 1e-4)] * num_models
    allowed_JJ = near_JJ.clone()
    for model in range(num_models):
        if budgets[model] == 0:
            _forbid(allowed_JJ, model_J == model)
    for _ in range(removed):
        first, second = _most(allowed_JJ if bool((allowed_JJ > -torch.inf).any()) else near_JJ)
        group_J[group_J == second] = first
        discount = alpha if int((group_J == first).sum()) >= num_models else 1.0
        for matrix_JJ in (near_JJ, allowed_JJ):
            _absorb(matrix_JJ, first, second, discount)
        model = int(model_J[first])
        if model == int(model_J[second]):
            budgets[model] -= 1
            if budgets[model] <= 0:
                _forbid(allowed_JJ, model_J == model)
    firsts = torch.unique(group_J)
    return torch.searchsorted(firsts, group_J).reshape(num_models, -1)


def _most(near_JJ: Tensor) -> tuple[int, int]:
    """The pair that correlates most, the smaller index first."""
    one, other = divmod(int(near_JJ.argmax()), len(near_JJ))
    return min(one, other), max(one, other)


def _absorb(near_JJ: Tensor, first: int, second: int, discount: float) -> None:
    """The second group becomes part of the first, in place."""
    merged_J = torch.minimum(near_JJ[first], near_JJ[second]) * discount
    merged_J[first] = -torch.inf
    for index, values_J in ((first, merged_J), (second, torch.full_like(merged_J, -torch.inf))):
        near_JJ[index] = values_J
        near_JJ[:, index] = values_J


def _forbid(allowed_JJ: Tensor, own_J: Tensor) -> None:
    """No more merges within a model, in place."""
    allowed_JJ[own_J[:, None] & own_J] = -torch.inf
