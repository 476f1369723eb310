from __future__ import annotations

import pytest

from transfuse.strategy.trained import late_gain


@pytest.mark.parametrize(
    ("losses", "gain"),
    [
        ([1.0, 0.8, 0.6, 0.5, 0.4], 0.2),
        # the lowest of the first eight is 0.5, of the last two 0.45
        ([1.0, 0.9, 0.5, 0.7, 0.8, 0.9, 0.9, 0.9, 0.45, 0.6], 0.1),
        # overfitted: the last fifth is above what was reached before
        ([1.0, 0.5, 0.6, 0.7, 0.75], -0.5),
        ([1.0] * 7, 0.0),
        ([1.0, 0.5, 0.4, 0.3], None),
        ([], None),
        ([1.0, 0.0, 0.0, 0.0, 0.0], None),
    ],
)
def test_late_gain_is_a_share_of_what_was_reached_before(losses: list[float], gain: float | None) -> None:
    assert late_gain(losses) == (None if gain is None else pytest.approx(gain))
