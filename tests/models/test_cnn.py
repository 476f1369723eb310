from __future__ import annotations

import pytest
import torch
from torch import nn

from transfuse.models import build_cnn
from transfuse.types import Task

DIGITS = (Task(name="digit", kind="classification", outputs=10),)


@pytest.mark.parametrize(("size", "left"), [(8, 2), (14, 3), (28, 7)])
def test_parameters_are_predicted_by_the_sizes(size: int, left: int) -> None:
    network = build_cnn(input_shape=(1, size, size), tasks=DIGITS)
    expected = (9 * 16 + 16) + (9 * 16 * 32 + 32) + (32 * left * left * 64 + 64) + (64 * 10 + 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_batch_norm_replaces_the_bias_of_the_convolutions() -> None:
    network = build_cnn(input_shape=(1, 8, 8), tasks=DIGITS, batch_norm=True)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [16, 32]
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))


def test_a_stage_is_pooled_rectified_convolution() -> None:
    network = build_cnn(input_shape=(3, 9, 8), tasks=DIGITS, channels=[4])
    state, images = network.state_dict(), torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    convolved = nn.functional.conv2d(
        images, state["backbone.stages.0.0.weight"], state["backbone.stages.0.0.bias"], padding=1
    )
    expected = convolved.relu()[:, :, :8].unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax(dim=(3, 5))
    torch.testing.assert_close(network.backbone.stages[0](images), expected)
