"""A real training for the methods that average along it, and the weights on its way, taken by other means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.toy import SIGN, make_context, make_development, make_setting
from transfuse.base_models import Seeds
from transfuse.models.architecture import Architecture
from transfuse.models.network import Backbone, with_heads
from transfuse.randomness import derive_seed
from transfuse.strategy.base import Context
from transfuse.training.settings import Training
from transfuse.types import Task

GOLDEN = Path(__file__).parents[2] / "golden" / "weight_fusion"
EPOCHS, EPOCH = 8, 3  # epochs, and optimizer steps of each


def normed(*, input_shape: tuple[int, ...], tasks: tuple[Task, ...]) -> nn.Module:
    stage = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
    return with_heads(Backbone(stem=nn.Flatten(), stages=[stage], neck=nn.Identity(), features=8), tasks)


def training_context(
    folder: Path, *, batch_norm: bool = False, tasks: Sequence[Task] = (SIGN,), **more: Any
) -> Context:
    setting = make_setting(make_development(*tasks), **{"epochs": EPOCHS, "lr": 0.02, **more})
    if batch_norm:
        architecture = Architecture(name="normed", recipe={"_target_": "normed"}, make=normed)
        setting = replace(setting, architecture=architecture)
    return make_context(setting, Seeds(count=2), folder)


def weights_at(context: Context, steps: Sequence[int]) -> list[dict[str, Tensor]]:
    """State dicts along the training of `baseline/scratch`, without any averaging."""
    from transfuse.training import BaseModule

    training: Training = replace(context.training, patience=None, keep="last")
    data = context.development
    network = context.architecture.build(data.input_shape, data.tasks, context.generator("init"))
    fitting = context.fit.begin(
        BaseModule(network, data.tasks, training),
        data.train,
        data.validation,
        settings=training,
        seed=derive_seed(context.seed, "order"),
        name="reference",
    )
    states = []
    for step in steps:
        fitting.advance(step)
        states.append(fitting.snapshot().state_dict())
    return states


def golden_snapshots() -> tuple[list[dict[str, Tensor]], dict[str, np.ndarray]]:
    """Five snapshots of a network with BatchNorm, and what torch made of them."""
    arrays = dict(np.load(GOLDEN / "torch_swa_ema_updatebn.npz"))
    states = [
        {
            key.removeprefix(f"in_t{step}."): torch.from_numpy(np.asarray(value))
            for key, value in arrays.items()
            if key.startswith(f"in_t{step}.")
        }
        for step in range(5)
    ]
    return states, arrays


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
