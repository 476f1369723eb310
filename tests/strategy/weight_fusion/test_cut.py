from __future__ import annotations

import pytest
import torch

from transfuse.strategy.weight_fusion.cut import NOTHING, Cut, everything

VALUES = torch.tensor([2.0, -2.0, 0.0, 3.0, -1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        (Cut(threshold=2.0, last=1), [1, 1, 0, 1, 0, 0]),
        (Cut(threshold=2.0, last=0), [1, 0, 0, 1, 0, 0]),
        (Cut(threshold=2.0, last=5), [1, 1, 0, 1, 0, 1]),
        (Cut(threshold=3.0, last=3), [0, 0, 0, 1, 0, 0]),
        (NOTHING, [0] * 6),
        (everything(6), [1] * 6),
    ],
)
def test_equal_magnitudes_are_kept_up_to_an_index(cut: Cut, kept: list[int], dtype: torch.dtype) -> None:
    values = VALUES.to(dtype)
    expected = torch.tensor(kept, dtype=torch.bool)
    assert torch.equal(cut.keeps(values), expected)
    assert torch.equal(cut.trim(values), values * expected)
    for size in (1, 2, 4):
        pieces = [(values[start : start + size], start) for start in range(0, 6, size)]
        assert torch.equal(torch.cat([cut.keeps(piece, start) for piece, start in pieces]), expected)
        assert torch.equal(torch.cat([cut.trim(piece, start) for piece, start in pieces]), values * expected)
    assert torch.equal(cut.shifted(2).keeps(values[2:]), expected[2:])


def test_trimming_writes_to_new_memory() -> None:
    values = VALUES.clone()
    everything(6).trim(values).zero_()
    assert torch.equal(values, VALUES)


def test_neighbours_of_the_threshold() -> None:
    one = torch.tensor(1.0)
    values = torch.stack([one, one.nextafter(torch.tensor(0.0)), one.nextafter(torch.tensor(2.0))])
    assert Cut(threshold=1.0, last=0).keeps(values).tolist() == [True, False, True]
    assert Cut(threshold=1.0, last=2).trim(values).tolist() == [1.0, 0.0, float(values[2])]


def test_a_threshold_between_two_numbers_of_a_narrower_type() -> None:
    tenth = torch.tensor([0.1, -0.1, 0.2, 0.0])  # 0.1 in float32 is above 0.1
    above = Cut(threshold=0.1, last=-1)
    assert above.keeps(tenth).tolist() == [True, True, True, False]
    assert torch.equal(above.trim(tenth), tenth)
    below = Cut(threshold=0.1 + 1e-8, last=3)  # above 0.1 in float32
    assert below.keeps(tenth).tolist() == [False, False, True, False]
    assert below.trim(tenth).tolist() == [0.0, 0.0, tenth[2].item(), 0.0]
