from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from transfuse.strategy.weight_fusion.grams import input_grams


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_linear_layers_gram_is_over_all_positions() -> None:
    inputs = drawn(70, 5, 4)
    rows = inputs.reshape(-1, 4).double()
    found = input_grams(nn.Sequential(nn.Linear(4, 3)), inputs)
    assert found.keys() == {"0.weight"}
    torch.testing.assert_close(found["0.weight"], rows.T @ rows / 350, rtol=1e-12, atol=1e-12)


def test_a_deeper_layer_sees_what_enters_it() -> None:
    network, inputs = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), drawn(50, 4)
    with torch.no_grad():
        hidden = network[:2](inputs).double()
    torch.testing.assert_close(input_grams(network, inputs)["2.weight"], hidden.T @ hidden / 50, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}, {"stride": (2, 1), "dilation": (1, 2)}],
    ids=str,
)
def test_a_convolutions_gram_is_that_of_its_patches(options: dict[str, int]) -> None:
    inputs = drawn(40, 3, 8, 9)
    patches = unfold(inputs, (3, 2), **options).transpose(1, 2).reshape(-1, 18).double()
    found = input_grams(nn.Sequential(nn.Conv2d(3, 5, (3, 2), **options)), inputs)["0.weight"]
    assert found.shape == (1, 18, 18)
    torch.testing.assert_close(found[0], patches.T @ patches / len(patches), rtol=1e-6, atol=1e-7)


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, groups=2, padding=1, bias=False), (4, 11)),
    (nn.Conv1d(4, 6, 4, padding="same", dilation=2, bias=False), (4, 11)),
    (nn.Conv2d(4, 4, 3, groups=4, padding="valid", bias=False), (4, 6, 7)),
    (nn.Conv2d(4, 8, 3, groups=2, padding=(1, 2), padding_mode="circular", bias=False), (4, 6, 7)),
    (nn.Conv2d(4, 8, 2, padding="same", padding_mode="reflect", bias=False), (4, 6, 7)),
    (nn.Conv3d(2, 4, (2, 3, 1), stride=(1, 2, 1), padding=(1, 0, 2), bias=False), (2, 4, 6, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=str)
def test_grams_give_the_outputs_second_moments(layer: nn.Conv2d, shape: tuple[int, ...]) -> None:
    """y = W x, so sum over positions of y y^T is W G W^T: this holds only where patches and groups are the layer's."""
    layer, inputs = layer.double(), drawn(35, *shape).double()
    found_GII = input_grams(nn.Sequential(layer), inputs)["0.weight"]
    with torch.no_grad():
        outputs = layer(inputs).transpose(0, 1).flatten(1)  # (O, R)
        weights = layer.weight.reshape(layer.groups, -1, found_GII.shape[1])
    assert len(found_GII) == layer.groups
    for outputs_OR, weight_OI, gram_II in zip(outputs.chunk(layer.groups), weights, found_GII, strict=True):
        expected = outputs_OR @ outputs_OR.T / outputs.shape[1]
        torch.testing.assert_close(weight_OI @ gram_II @ weight_OI.T, expected, rtol=1e-10, atol=1e-12)


class Shared(nn.Module):
    """One layer that runs twice, one that never runs, and a second name of the first's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.tied = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.tied.weight = self.used.weight

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.used(2 * inputs) + self.used(inputs)
        return result


def test_layers_that_run_twice_or_never_and_tied_ones() -> None:
    inputs = drawn(40, 3)
    found = input_grams(Shared(), inputs)
    assert found.keys() == {"used.weight", "tied.weight"}
    # the mean of G of x and of G of 2 x
    expected = 2.5 * inputs.double().T @ inputs.double() / 40
    torch.testing.assert_close(found["used.weight"], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(found["tied.weight"], found["used.weight"])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batches_change_nothing_and_no_hook_stays(size: int) -> None:
    network, inputs = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 2)), drawn(20, 1, 6, 6)
    expected, found = input_grams(network, inputs), input_grams(network, inputs, batch_size=size)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
    assert all(not module._forward_pre_hooks for module in network.modules())
