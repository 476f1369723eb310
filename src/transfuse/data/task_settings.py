"""What a user sets for one task of a data set: `data.tasks.<name>.loss_scale`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from transfuse.data.dataset import require
from transfuse.suggest import nearest
from transfuse.types import HyperparameterError, Task

TaskSettings = Mapping[str, Mapping[str, float]]


def plain(names: Sequence[str]) -> TaskSettings:
    """Every task with factor 1."""
    return {name: {"loss_scale": 1.0} for name in names}


def check_settings(settings: TaskSettings, names: Sequence[str]) -> None:
    """Raises `HyperparameterError` for an unknown task or setting, and for a factor that is not > 0 and finite.

    Args:
        settings: task name -> `loss_scale` -> factor.
        names: of the data set's tasks.
    """
    for name, values in settings.items():
        if name not in names:
            raise HyperparameterError(f"`tasks` names {name}, which is no task of these data.{nearest(name, names)}")
        for setting, value in values.items():
            if setting != "loss_scale":
                raise HyperparameterError(f"`tasks.{name}` takes loss_scale. Found {setting}.")
            require(math.isfinite(value) and value > 0, f"tasks.{name}.loss_scale", "> 0 and finite", value)


def with_settings(tasks: Sequence[Task], settings: TaskSettings) -> tuple[Task, ...]:
    """The tasks with their factors; 1 where none is set."""
    return tuple(replace(task, loss_scale=float(settings.get(task.name, {}).get("loss_scale", 1.0))) for task in tasks)
