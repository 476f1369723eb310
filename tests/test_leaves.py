from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfuse.leaves import LEAF, gram, leaves, pairwise_sum


@settings(deadline=None, database=None)
@given(num_elements=st.integers(0, 500), size=st.integers(1, 600))
def test_leaves_cover_every_element_once_in_order(num_elements: int, size: int) -> None:
    pieces = list(leaves(num_elements, size))
    assert sum(piece.stop - piece.start for piece in pieces) == num_elements
    assert all(1 <= piece.stop - piece.start <= size for piece in pieces)
    assert all(left.stop == right.start for left, right in pairwise(pieces))


def test_a_leaf_is_64_ki_elements() -> None:
    assert [piece.stop for piece in leaves(LEAF + 1)] == [65_536, 65_537]


@settings(deadline=None, database=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_pairwise_sum_equals_the_exact_sum(values: list[float]) -> None:
    total = pairwise_sum([torch.tensor(value, dtype=torch.float64) for value in values])
    assert total.dtype == torch.float64
    assert total.item() == pytest.approx(math.fsum(values), abs=1e-8)


def test_pairwise_sum_is_more_exact_than_a_running_one() -> None:
    parts = [torch.tensor(0.1, dtype=torch.float64)] * 4096
    assert pairwise_sum(parts).item() == 0.1 * 4096


@pytest.mark.parametrize("num_elements", [0, 1, 7, LEAF + 3])
def test_gram_equals_inner_products(num_elements: int) -> None:
    stream = torch.Generator().manual_seed(0)
    values_K = [torch.randn(num_elements, generator=stream) for _ in range(3)]
    flat_KN = torch.stack(values_K).double()
    torch.testing.assert_close(gram(values_K), flat_KN @ flat_KN.T, rtol=1e-12, atol=1e-12)
