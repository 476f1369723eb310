"""Pools of toy networks, and of every shipped architecture on small pictures, for methods that move units."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from transfuse.base_models.model import BaseModel
from transfuse.models import build_cnn, build_mlp, build_resnet, build_vit
from transfuse.strategy.base import Context
from transfuse.strategy.weight_fusion.permuted import PermutedModels

BUILT = {
    "mlp": lambda **sizes: build_mlp(widths=[8, 6], **sizes),
    "cnn": lambda **sizes: build_cnn(channels=[4, 6], batch_norm=True, **sizes),
    "resnet": lambda **sizes: build_resnet(channels=[4, 6], blocks=[1, 1], **sizes),
    "vit": lambda **sizes: build_vit(width=8, heads=2, depth=1, **sizes),
}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pool(toys, count: int = 2, batch_norm: bool = False):
    data = toys.development()
    members = [
        toys.train(toys.network(seed, batch_norm=batch_norm), data.train, seed=seed, steps=60) for seed in range(count)
    ]
    return data, members


class Pictures(PermutedModels):
    """The toy pool with networks of another architecture in it."""

    def __init__(self, context: Context, networks: list[nn.Module]) -> None:
        super().__init__(context.base_models, [network.state_dict() for network in networks])
        self._networks = networks

    def __getitem__(self, index: int) -> BaseModel:
        return replace(super().__getitem__(index), build=partial(copy_of, self._networks[index]))


def copy_of(network: nn.Module) -> nn.Module:
    """A fresh one of the same architecture."""
    return BUILT[network.name](input_shape=network.shape, tasks=network.tasks)


def pictures(toys, name: str) -> tuple[Context, list[nn.Module]]:
    """Two networks for 4 x 4 images, of any shipped architecture, untrained."""
    data, members = pool(toys)
    shape = (16,) if name == "mlp" else (1, 4, 4)

    def widened(split):
        return replace(split, inputs=split.inputs.repeat(1, 4).reshape(len(split), *shape))

    data = replace(data, train=widened(data.train), validation=widened(data.validation))
    networks = []
    for seed in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = BUILT[name](input_shape=shape, tasks=data.tasks)
        network.name, network.shape, network.tasks = name, shape, data.tasks
        networks.append(network.eval())
    context = toys.context(members, toys.development())
    return replace(context, development=data, base_models=Pictures(context, networks)), networks
