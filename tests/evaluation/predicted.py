"""Test predictions of every kind of task, for tests of their analysis."""

from __future__ import annotations

import torch
from torch import Tensor

from transfuse.evaluation import Result
from transfuse.metrics import scores_and_classes
from transfuse.types import Task

SHAPE = Task(name="shape", kind="classification", outputs=3, classes=("disc", "box", "star"))
TAGS = Task(name="tags", kind="multilabel", outputs=2)
SIZE = Task(name="size", kind="regression", outputs=2, classes=("height", "width"), scale=(2.0, 1.0))
MEMBERS = ("one", "two", "three")


def targets_of(task: Task, num: int = 40) -> Tensor:
    """Targets, some of them unlabelled."""
    generator = torch.Generator().manual_seed(1)
    if task.kind == "classification":
        targets = torch.arange(num) % task.outputs
        targets[5] = -1
        return targets
    values = torch.randn(num, task.outputs, generator=generator)
    targets = values if task.kind == "regression" else (values > 0).float()
    targets[3:6, 1] = torch.nan
    return targets


def members_of(task: Task, targets: Tensor) -> Tensor:
    """(M, N, C) outputs that have something to do with the targets."""
    generator = torch.Generator().manual_seed(2)
    noise_MNC = torch.randn(3, len(targets), task.outputs, generator=generator)
    if task.kind == "classification":
        return noise_MNC + 2 * torch.nn.functional.one_hot(targets.clamp(min=0), task.outputs)
    return noise_MNC + 2 * targets.nan_to_num(0.0)


def result_of(*tasks: Task, members: bool = True, report: bool = False) -> Result:
    """What the evaluation of a mean of three members gives; with `report`, of a report about them."""
    targets = {task.name: targets_of(task) for task in tasks}
    of_members = {task.name: members_of(task, targets[task.name]) for task in tasks}
    outputs = {name: values if report else values.mean(0) for name, values in of_members.items()}
    classes = {
        task.name: scores_and_classes(task, outputs[task.name], targets[task.name])[1] for task in tasks if not report
    }
    return Result(
        test={},
        outputs=outputs,
        targets=targets,
        ids=torch.arange(40),
        cost={},
        members=of_members if members else {},
        by_class={name: found for name, found in classes.items() if found is not None},
    )
