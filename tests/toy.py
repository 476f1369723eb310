"""A toy problem of every kind, trained for real in milliseconds: shared by tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfuse.base_models import BaseModelRecipe, Pool, Setting, Store
from transfuse.data.splits import fingerprint
from transfuse.models import build_mlp
from transfuse.models.architecture import Architecture
from transfuse.strategy.base import Context
from transfuse.training.fit import Fit
from transfuse.training.settings import Devices, Training
from transfuse.types import Development, Split, Task


def make_split(num: int, first: int, tasks: tuple[Task, ...]) -> Split:
    generator = torch.Generator().manual_seed(first + 1)
    inputs = torch.randn(num, 4, generator=generator)
    classes = (inputs[:, 0] > 0).long()
    targets = {task.name: classes if task.kind == "classification" else inputs[:, 1:2].clone() for task in tasks}
    return Split(inputs=inputs, targets=targets, ids=torch.arange(first, first + num))


def make_development(*tasks: Task, source: Development | None = None) -> Development:
    train, validation = make_split(48, 0, tasks), make_split(24, 48, tasks)
    return Development(
        name="toy",
        tasks=tasks,
        train=train,
        validation=validation,
        fingerprint=fingerprint(tasks, train, validation),
        source=source,
    )


def make_setting(development: Development, seed: int = 0, **training: Any) -> Setting:
    def make(**given: Any) -> nn.Module:
        return build_mlp(widths=[8], **given)

    return Setting(
        development=development,
        architecture=Architecture(name="mlp", recipe={"_target_": "mlp", "widths": [8]}, make=make),
        training=Training(**{"epochs": 2, "batch_size": 16, **training}),
        seed=seed,
    )


SIGN = Task(name="sign", kind="classification", outputs=2)
VALUE = Task(name="value", kind="regression", outputs=1, location=(0.0,), scale=(1.0,))


CPU = Devices(accelerator="cpu", devices=1, progress=False)


def make_context(setting: Setting, recipe: BaseModelRecipe, folder: Path) -> Context:
    pool = Pool(
        name=recipe.name,
        members=recipe.members(setting),
        development=setting.development,
        store=Store(folder),
        fit=Fit(CPU),
    )
    return Context(
        development=setting.development,
        base_models=pool,
        architecture=setting.architecture,
        training=setting.training,
        fit=pool.fit,
        seed=setting.seed,
        selection_metric="nll",
    )
