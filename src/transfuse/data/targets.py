"""Target columns as tasks: the kind, inferred or given, the classes, and the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from transfuse.data.tables import Array, content
from transfuse.types import DataError, Split, Task, TaskKind

MAX_INFERRED_CLASSES = 20


def infer_kind(values: Array) -> TaskKind:
    """What a target (N,) or (N, D) is: strings, booleans and few different integers are classes, floats are values.

    Several columns of integers or booleans that are all 0 or 1 are labels (`multilabel`).
    """
    held = content(values)
    if values.ndim > 1 and values.shape[1] > 1:
        return "multilabel" if held in ("integers", "booleans") and np.isin(values, (0, 1)).all() else "regression"
    if held == "integers":
        return "classification" if len(np.unique(values)) <= MAX_INFERRED_CLASSES else "regression"
    return "regression" if held == "floats" else "classification"


def describe(column: str, values: Array, kind: TaskKind) -> Task:
    """The task of a target column; `location` and `scale` come later, from training rows.

    Args:
        column: its name; the task gets it in letters that metric names may hold.
        values: (N,), or (N, D) where the kind allows several outputs.
        kind: of the task.

    Raises:
        DataError: values that do not fit the kind, or one class only.
    """
    name = task_name(column)
    if values.ndim > 2:
        raise DataError(f"Target `{column}` has shape {values.shape}. At most 2 dimensions can be used.")
    if kind == "classification":
        if values.size != len(values):
            raise DataError(f"Target `{column}` has {values.shape[1]} columns; classification needs one.")
        classes = tuple(str(value) for value in np.unique(values))
        if len(classes) < 2:
            raise DataError(f"Target `{column}` holds one class only ({classes[0]}). At least 2 are needed.")
        return Task(name=name, kind=kind, outputs=len(classes), classes=classes)
    if content(values) == "strings":
        raise DataError(f"Target `{column}` holds strings; {kind} needs numbers. Did you mean classification?")
    if kind == "multilabel" and not np.isin(values, (0, 1)).all():
        raise DataError(f"Target `{column}` holds other values than 0 and 1; multilabel needs zeros and ones.")
    outputs = values.size // len(values)
    return Task(name=name, kind=kind, outputs=outputs, classes=(column,) if outputs == 1 else ())


def encode_target(task: Task, values: Array, where: str) -> Tensor:
    """Targets (N,) int64 class numbers, or (N, C) float32.

    Args:
        task: from `describe`.
        values: (N,) or (N, C), of the same file or of another one.
        where: the target and its file, for messages.

    Raises:
        DataError: a class that the task does not know, or another number of columns.
    """
    if task.kind != "classification":
        if content(values) == "strings" or values.size != len(values) * task.outputs:
            raise DataError(f"{where} should hold {task.outputs} number(s) a row.")
        if task.kind == "multilabel" and not np.isin(values, (0, 1)).all():
            raise DataError(f"{where} holds other values than 0 and 1; multilabel needs zeros and ones.")
        return torch.from_numpy(values.astype(np.float32)).reshape(len(values), task.outputs)
    found, inverse_N = np.unique(values, return_inverse=True)
    numbers = {name: number for number, name in enumerate(task.classes)}
    unknown = [str(value) for value in found if str(value) not in numbers]
    if unknown:
        raise DataError(f"{where} holds classes that the training file does not: {', '.join(unknown[:10])}.")
    number_of = np.array([numbers[str(value)] for value in found], dtype=np.int64)
    return torch.from_numpy(number_of[inverse_N.reshape(-1)])


def with_statistics(task: Task, train_values: Tensor) -> Task:
    """A regression task with mean and (population) standard deviation of its training targets; others unchanged.

    Raises:
        DataError: a target that is constant in the training split, or a class that does not occur there.
    """
    if absent := _absent_classes(task, train_values):
        raise DataError(f"Task {task.name}: no example of class {absent} is in the training split. Merge or drop it.")
    if task.kind != "regression":
        return task
    values_ND = train_values.double()
    constant_D = values_ND.amin(0) == values_ND.amax(0)
    if constant_D.any():
        raise DataError(f"Task {task.name}: the target is constant in the training split, so nothing can be learned.")
    location, scale = values_ND.mean(0), values_ND.std(0, correction=0)
    return replace(task, location=tuple(location.tolist()), scale=tuple(scale.tolist()))


def check_counts(task: Task, labels_N: Tensor, *, least: int) -> None:
    """Raises `DataError` unless every class of a classification task has `least` examples, one for each split."""
    counts_C = torch.bincount(labels_N, minlength=task.outputs)
    smallest = int(counts_C.argmin())
    if counts_C[smallest] < least:
        raise DataError(
            f"Class {task.classes[smallest]} of target {task.name} has {int(counts_C[smallest])} example(s). At least "
            f"{least} are needed, one for each split. Merge or drop rare classes."
        )


def absent_notes(tasks: Sequence[Task], splits: Mapping[str, Split]) -> tuple[str, ...]:
    """One sentence for each task and split in which some class does not occur."""
    return tuple(
        f"Task {task.name}: no example of class {absent} is in the {name} split."
        for task in tasks
        for name, split in splits.items()
        if (absent := _absent_classes(task, split.targets[task.name]))
    )


def _absent_classes(task: Task, values: Tensor) -> str:
    if task.kind != "classification":
        return ""
    return ", ".join(task.classes[label] for label in sorted(set(range(task.outputs)) - set(values.tolist())))


def task_name(column: str) -> str:
    """The column's name in letters, digits, `_` and `-`: networks, trackers and files are keyed by it."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", column).strip("_") or "target"
    # torch refuses heads that are called like an attribute of the module that holds them, such as `type`
    return f"{name}_" if name in dir(nn.ModuleDict()) else name
