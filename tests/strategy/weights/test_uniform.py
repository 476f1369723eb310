from __future__ import annotations

import pytest

from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.weights import Uniform


@pytest.mark.parametrize("members", [1, 2, 7])
def test_every_member_counts_the_same(members: int) -> None:
    found = Uniform().weights(make_predictions("regression", members=members))
    assert found.values_M.tolist() == [1 / members] * members
    assert not Uniform().fitted
