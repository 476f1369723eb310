"""Rules that change the shape of pretrained tensors, against golden values of timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from transfuse.models.adaptation import adapt_input_channels, first_convolution, resample_position_embedding
from transfuse.types import HyperparameterError, StateDictMismatch

GOLDEN = Path(__file__).parents[1] / "golden" / "transfer"


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_input_channels_match_timm(channels: int) -> None:
    golden = load_file(GOLDEN / "input_conv.safetensors")
    adapted = adapt_input_channels(golden["weight"], channels)
    torch.testing.assert_close(adapted, golden[f"to_{channels}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 4), (3, 6), (1, 1)])
def test_equal_channels_give_equal_activations(before: int, after: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, before, 3, 3, generator=generator)
    grey = torch.randn(2, 1, 6, 6, generator=generator)
    expected = nn.functional.conv2d(grey.expand(-1, before, -1, -1), weight)
    adapted = nn.functional.conv2d(grey.expand(-1, after, -1, -1), adapt_input_channels(weight, after))
    torch.testing.assert_close(adapted, expected, rtol=1e-5, atol=1e-5)


def test_input_channels_of_one_and_three_dimensional_kernels() -> None:
    assert adapt_input_channels(torch.ones(2, 1, 5), 4).tolist() == torch.full((2, 4, 5), 0.25).tolist()
    assert adapt_input_channels(torch.ones(2, 4, 3, 3, 3), 2).tolist() == torch.full((2, 2, 3, 3, 3), 2.0).tolist()


def test_no_channels_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"`channels` should be an integer >= 1. Found `channels = 0`."):
        adapt_input_channels(torch.ones(2, 3, 3, 3), 0)


@pytest.mark.parametrize("side", [6, 8])
def test_positions_match_timm(side: int) -> None:
    golden = load_file(GOLDEN / "position_embedding.safetensors")
    resampled = resample_position_embedding(golden["position_embedding"], (side, side), 1)
    torch.testing.assert_close(resampled, golden[f"to_{side}x{side}"], rtol=1e-5, atol=1e-5)


def test_positions_keep_their_prefix_and_a_grid_of_the_same_size() -> None:
    positions = torch.randn(1, 2 + 9, 4, generator=torch.Generator().manual_seed(0))
    same = resample_position_embedding(positions, (3, 3), 2)
    torch.testing.assert_close(same, positions, rtol=1e-6, atol=1e-6)
    assert torch.equal(resample_position_embedding(positions, (5, 7), 2)[:, :2], positions[:, :2])
    assert resample_position_embedding(positions, (5, 7), 2).shape == (1, 37, 4)


def test_rows_of_the_grid_stay_rows() -> None:
    rows = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 4, 1)
    grid = resample_position_embedding(rows, (4, 4), 0).reshape(4, 4)
    torch.testing.assert_close(grid, grid[:, :1].expand(4, 4))
    assert grid[0, 0] < grid[1, 0] < grid[2, 0] < grid[3, 0]


def test_positions_in_no_square_are_refused() -> None:
    with pytest.raises(StateDictMismatch) as caught:
        resample_position_embedding(torch.zeros(1, 7, 2), (2, 2), 1)
    assert str(caught.value) == ("A position embedding should have prefix + g * g tokens. Found 7 with `prefix = 1`.")


def test_the_first_convolution_is_found_in_module_order() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)))
    assert first_convolution(network) == "1.0.weight"
    assert first_convolution(nn.Conv1d(1, 2, 3)) == "weight"
    assert first_convolution(nn.Linear(2, 2)) == ""
    assert first_convolution(nn.Conv2d(4, 4, 3, groups=2)) == ""
