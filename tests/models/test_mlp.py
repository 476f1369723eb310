from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from transfuse.models import build_mlp
from transfuse.types import Task

DIGITS = (Task(name="digit", kind="classification", outputs=10),)


def test_sizes_on_digits() -> None:
    network = build_mlp(input_shape=(1, 8, 8), tasks=DIGITS)
    expected = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_any_input_shape_is_flattened() -> None:
    network = build_mlp(input_shape=(2, 3, 5, 7), tasks=DIGITS, widths=[4])
    assert network(torch.zeros(6, 2, 3, 5, 7))["digit"].shape == (6, 10)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("tanh", torch.tanh),
        ("gelu", nn.functional.gelu),
        ("silu", lambda x: x * torch.sigmoid(x)),
    ],
)
def test_one_hidden_layer_is_the_formula(name: str, function: Callable[[Tensor], Tensor]) -> None:
    network = build_mlp(input_shape=(5,), tasks=DIGITS, widths=[7], activation=name)
    state, inputs = network.state_dict(), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    hidden = function(inputs @ state["backbone.stages.0.0.weight"].T + state["backbone.stages.0.0.bias"])
    expected = hidden @ state["heads.digit.linear.weight"].T + state["heads.digit.linear.bias"]
    torch.testing.assert_close(network(inputs)["digit"], expected, rtol=1e-5, atol=1e-6)
