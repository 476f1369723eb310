from __future__ import annotations

import torch
from torch import nn

from transfuse.models import build_resnet
from transfuse.types import Task

DIGITS = (Task(name="digit", kind="classification", outputs=10),)


def test_parameters_are_predicted_by_the_sizes() -> None:
    network = build_resnet(input_shape=(3, 8, 8), tasks=DIGITS, channels=[4, 6], blocks=[2, 1])
    stem = 9 * 3 * 4 + 2 * 4
    plain_block = 2 * (9 * 4 * 4 + 2 * 4)
    projected_block = (9 * 4 * 6 + 2 * 6) + (9 * 6 * 6 + 2 * 6) + (4 * 6 + 2 * 6)
    expected = stem + 2 * plain_block + projected_block + (6 * 10 + 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_stages_after_the_first_halve_the_image() -> None:
    network = build_resnet(input_shape=(1, 14, 14), tasks=DIGITS)
    hidden, shapes = network.backbone.stem(torch.zeros(2, 1, 14, 14)), []
    for stage in network.backbone.stages:
        hidden = stage(hidden)
        shapes.append(tuple(hidden.shape[1:]))
    assert shapes == [(16, 14, 14), (32, 7, 7), (64, 4, 4)]


def test_a_block_whose_last_norm_is_zero_is_its_shortcut() -> None:
    network = build_resnet(input_shape=(1, 8, 8), tasks=DIGITS).eval()
    plain, projected = network.backbone.stages[0][0], network.backbone.stages[1][0]
    images = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).relu()
    for block in (plain, projected):
        nn.init.zeros_(block.norm2.weight)
    assert torch.equal(plain(images), images)
    assert torch.equal(projected(images), projected.shortcut(images).relu())
