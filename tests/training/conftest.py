"""Small problems for all training tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from transfuse.models.mlp import build_mlp
from transfuse.training import Devices, Fit
from transfuse.types import Split, Task

CLASSES = Task(name="class", kind="classification", outputs=3)
LABELS = Task(name="labels", kind="multilabel", outputs=2)
VALUE = Task(name="value", kind="regression", outputs=1, location=(1.0,), scale=(2.0,), loss_scale=0.5)


@pytest.fixture
def tasks() -> tuple[Task, ...]:
    return CLASSES, LABELS, VALUE


@pytest.fixture
def make_split() -> Callable[..., Split]:
    def make(size: int, seed: int = 0) -> Split:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(size, 6, generator=generator)
        targets = {
            "class": inputs[:, :3].argmax(1),
            "labels": (inputs[:, 3:5] > 0).float(),
            "value": 1.0 + 2.0 * inputs[:, 5:] + 0.1 * torch.randn(size, 1, generator=generator),
        }
        return Split(inputs=inputs, targets=targets, ids=torch.arange(size) + 1000 * seed)

    return make


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    def make(tasks: tuple[Task, ...], *, seed: int = 0, dropout: float = 0.0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_mlp(input_shape=(6,), tasks=tasks, widths=(8, 8), dropout=dropout)

    return make


@pytest.fixture
def cpu() -> Fit:
    return Fit(Devices(accelerator="cpu", devices=1, progress=False))
