from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from transfuse.strategy.weight_fusion.election import check_election, elect_and_merge, elected_sign
from transfuse.types import HyperparameterError

WEIGHTS = (0.5, 1.5, 0.25)


def by_hand(deltas: list[float], weights: tuple[float, ...], merge: str, elect: str, weigh: str) -> float:
    """One element in Python floats."""
    votes = [weight * delta for weight, delta in zip(weights, deltas, strict=True)] if weigh != "after" else deltas
    counted = [math.copysign(1.0, vote) if vote else 0.0 for vote in votes] if elect == "count" else votes
    total, mass = math.fsum(counted), math.fsum(map(abs, counted))
    sign = 1.0 if abs(total) <= 2.0**-22 * mass else math.copysign(1.0, total)
    agree = [index for index, vote in enumerate(votes) if vote * sign > 0]
    values = [weights[index] * deltas[index] for index in agree]
    if not values:
        return 0.0
    if merge == "max":
        return max(values, key=abs)
    return math.fsum(values) / (math.fsum(weights[index] for index in agree) if merge == "mean" else 1.0)


@pytest.mark.parametrize("merge", ["mean", "sum", "max"])
@pytest.mark.parametrize("elect", ["mass", "count"])
@pytest.mark.parametrize("weigh", ["before_election", "after"])
def test_equals_the_definition_element_by_element(merge, elect, weigh) -> None:
    stream = np.random.default_rng(0)
    deltas_KB = np.where(stream.random((3, 400)) < 0.3, 0.0, stream.normal(size=(3, 400)))
    before = torch.from_numpy(deltas_KB.copy())
    merged_B = elect_and_merge(before, WEIGHTS, merge=merge, elect=elect, weigh=weigh)
    expected_B = [by_hand(list(column), WEIGHTS, merge, elect, weigh) for column in deltas_KB.T]
    np.testing.assert_allclose(merged_B.numpy(), expected_B, rtol=1e-14, atol=0)
    assert (before.numpy() == deltas_KB).all()


def test_options_differ_where_they_should() -> None:
    deltas_KB = torch.tensor([[3.0], [-1.0], [-1.0]])
    ones = (1.0, 1.0, 1.0)
    assert elect_and_merge(deltas_KB, ones).tolist() == [3.0]
    assert elect_and_merge(deltas_KB, ones, elect="count").tolist() == [-1.0]
    assert elect_and_merge(deltas_KB, (0.5, 1.0, 1.0)).tolist() == [-1.0]
    assert elect_and_merge(deltas_KB, (0.5, 1.0, 1.0), weigh="after").tolist() == [3.0]
    assert elect_and_merge(deltas_KB, (0.5, 1.0, 1.0), weigh="after", merge="sum").tolist() == [1.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_decide_ties(dtype: torch.dtype) -> None:
    triples = [(a, b, -(a + b)) for a, b in itertools.product((1.0, 3.0, 5.0, 7.0), repeat=2)]
    deltas_KB = torch.tensor(triples, dtype=dtype).T
    for weight in (1 / 3, 0.1, 0.7):
        rounded_KB = deltas_KB * torch.tensor(weight, dtype=dtype)
        assert elected_sign(rounded_KB).tolist() == [1.0] * len(triples)
    assert any(
        sum(map(Fraction, column)) < 0 for column in (deltas_KB * 0.1).T.tolist()
    )  # exact zeros alone would not do


def test_the_tolerance_is_two_to_the_minus_22() -> None:
    votes_KB = torch.tensor([[1.0, 1.0], [-1.0 - 2.0**-21, -1.0 - 2.0**-20]], dtype=torch.float64)
    assert elected_sign(votes_KB).tolist() == [1.0, -1.0]


def test_nobody_agrees_where_all_are_zero() -> None:
    assert elect_and_merge(torch.zeros(2, 3), (1.0, 1.0)).tolist() == [0.0, 0.0, 0.0]


def test_weights_that_cancel_do_not_divide() -> None:
    deltas_KB = torch.tensor([[2.0], [-1.0]])
    # votes 2 and 1 agree, their weights sum to 0
    assert elect_and_merge(deltas_KB, (1.0, -1.0)).tolist() == [3.0]


def test_blocks_change_no_bit() -> None:
    deltas_KB = torch.randn(8, 999, generator=torch.Generator().manual_seed(0))
    weights_K = tuple(0.1 * index + 0.05 for index in range(8))
    whole_B = elect_and_merge(deltas_KB, weights_K)
    for size in (1, 7, 500):
        assert torch.equal(torch.cat([elect_and_merge(part, weights_K) for part in deltas_KB.split(size, 1)]), whole_B)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("median", "mass", "after"), r"`merge` should be mean, sum or max. Found `merge = median`."),
        (("mean", "votes", "after"), r"`elect` should be mass or count. Found `elect = votes`."),
        (("mean", "mass", "before"), r"`weigh` should be before_election or after. Found `weigh = before`."),
    ],
)
def test_unknown_words_are_refused(fields: tuple[str, str, str], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        check_election(*fields)
