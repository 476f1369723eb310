"""`model=mlp`: fully connected layers over flattened inputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import nn

from transfuse.models.checks import require, require_dropout, require_sizes
from transfuse.models.network import Backbone, Network, with_heads
from transfuse.models.widths import chain
from transfuse.types import Task

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


def build_mlp(
    *,
    input_shape: tuple[int, ...],
    tasks: tuple[Task, ...],
    widths: Sequence[int] = (128, 128),
    activation: str = "relu",
    dropout: float = 0.0,
) -> Network:
    """A multi-layer perceptron: flatten, then `dropout(activation(W x + b))` once a width, then the heads.

    Args:
        input_shape: of one input, any shape.
        tasks: what to predict.
        widths: units of each hidden layer, >= 1; each hidden layer is a stage.
        activation: `relu`, `gelu`, `tanh` or `silu`.
        dropout: probability of dropping a hidden unit, in [0, 1).

    Raises:
        HyperparameterError: when a size is out of its range.
    """
    require_sizes("widths", widths)
    require(activation in ACTIVATIONS, "activation", f"one of {', '.join(ACTIVATIONS)}", activation)
    require_dropout(dropout)
    make_activation = ACTIVATIONS[activation]
    stages = [
        nn.Sequential(nn.Linear(before, after), make_activation(), nn.Dropout(dropout))
        for before, after in pairwise((math.prod(input_shape), *widths))
    ]
    backbone = Backbone(stem=nn.Flatten(), stages=stages, neck=nn.Identity(), features=widths[-1])
    network = with_heads(backbone, tasks)
    layers = [(f"backbone.stages.{index}.0", stage[0]) for index, stage in enumerate(stages)]
    network.widths = chain(network, "widths", layers, [()] * len(layers))
    return network
