from __future__ import annotations

import math

import torch
from torch import nn

from transfuse.models import build_vit
from transfuse.models.vit import Attention
from transfuse.randomness import global_stream, make_generator
from transfuse.types import Task

DIGITS = (Task(name="digit", kind="classification", outputs=10),)


def test_parameters_are_predicted_by_the_sizes() -> None:
    network = build_vit(input_shape=(3, 8, 4), tasks=DIGITS, patch=2, width=6, depth=3, heads=2, mlp_ratio=1.5)
    stem = (3 * 2 * 2 * 6 + 6) + (4 * 2) * 6
    block = 2 * (2 * 6) + 4 * (6 * 6 + 6) + (6 * 9 + 9) + (9 * 6 + 6)
    expected = stem + 3 * block + 2 * 6 + (6 * 10 + 10)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_attention_is_the_formula() -> None:
    with global_stream(make_generator("attention")):
        attention = Attention(6, heads=2).double()
        hidden = torch.randn(3, 5, 6, dtype=torch.float64)
    query, key, value = attention.query(hidden), attention.key(hidden), attention.value(hidden)
    mixed = []
    for head in (slice(0, 3), slice(3, 6)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(3)
        mixed.append(scores.softmax(dim=-1) @ value[..., head])
    torch.testing.assert_close(attention(hidden), attention.out(torch.cat(mixed, dim=-1)), rtol=1e-12, atol=1e-12)


def test_positions_make_the_order_of_patches_count() -> None:
    network = build_vit(input_shape=(1, 8, 8), tasks=DIGITS).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    swapped = torch.cat([images[..., 4:], images[..., :4]], dim=-1)
    assert not torch.allclose(network(images)["digit"], network(swapped)["digit"], atol=1e-5)
    nn.init.zeros_(network.backbone.stem.position_embedding)
    torch.testing.assert_close(network(images)["digit"], network(swapped)["digit"])


def test_positions_start_small() -> None:
    with global_stream(make_generator("positions")):
        network = build_vit(input_shape=(1, 28, 28), tasks=DIGITS)
    positions = network.backbone.stem.position_embedding
    assert positions.shape == (1, 14 * 14, 64)
    assert abs(float(positions.detach().std()) - 0.02) < 0.001
