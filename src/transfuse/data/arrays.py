"""Your own data: a CSV, Parquet or .npz file with one or several targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from transfuse.data.dataset import Dataset, require, require_fraction
from transfuse.data.features import Features, fit_features
from transfuse.data.splits import count, make_development, split_off, three_way
from transfuse.data.tables import Array, Table, content, read_table
from transfuse.data.targets import (
    absent_notes,
    check_counts,
    describe,
    encode_target,
    infer_kind,
    task_name,
    with_statistics,
)
from transfuse.types import DataError, Problem, Split, Task, TaskKind

MIN_ROWS = 10
_KINDS = ("classification", "regression", "multilabel")


@dataclass(frozen=True, kw_only=True)
class Arrays(Dataset):
    """A problem from a file: numbers are standardized by training statistics, strings made one-hot.

    Splits are stratified where the first target is a classification. What is decided about the data (inferred
    kinds, left-out and one-hot columns) stands in `Problem.notes`.

    Attributes:
        path: of a `.csv`, `.parquet` or `.npz` file, one row an example.
        target: name of a column or array, or several names: one task each.
        features: names of the columns to learn from; null: all other columns of numbers, in an .npz the array `x`.
            Columns of strings are used where they are named. Arrays of 3 or 4 dimensions are images.
        test_path: a file of the same form for the test split; null: a share of `path`.
        test_fraction: that share, in (0, 1).
        validation_fraction: share of what is not test that is validation, in (0, 1).
        kinds: target -> `classification`, `regression` or `multilabel`, where the inferred kind is not meant.
    """

    path: str
    target: str | Sequence[str]
    features: str | Sequence[str] | None = None
    test_path: str | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.25
    kinds: Mapping[str, TaskKind] | None = None

    def __post_init__(self) -> None:
        targets, features = _names(self.target), _names(self.features or ())
        require_fraction("test_fraction", self.test_fraction)
        require_fraction("validation_fraction", self.validation_fraction)
        require(len(targets) > 0, "target", "at least one name", self.target)
        require(self.features is None or len(features) > 0, "features", "at least one name or null", self.features)
        tasks = {task_name(target) for target in targets}
        require(len(tasks) == len(targets), "target", "different names (in letters, digits, _ and -)", self.target)
        both = [name for name in targets if name in features]
        require(not both, "features", "without the target", both)
        for name, kind in (self.kinds or {}).items():
            require(name in targets, "kinds", f"by target ({', '.join(targets)})", name)
            require(kind in _KINDS, f"kinds.{name}", "classification, regression or multilabel", kind)

    def build(self, *, seed: int, folder: Path) -> Problem:
        """Reads and checks the file(s), then splits, encodes and scales."""
        table = read_table(Path(self.path).expanduser())
        test_table = None if self.test_path is None else read_table(Path(self.test_path).expanduser())
        targets = table.pick(_names(self.target), "target")
        table.rows(tuple(targets), least=MIN_ROWS)
        names, notes = self._feature_names(table)
        columns = table.pick(names, "features")
        rows = table.rows((*targets, *columns), least=MIN_ROWS)
        tasks, task_notes = self._tasks(targets)
        values = _encoded(table, targets, tasks)
        first = next(iter(tasks.values()))
        train_index, validation_index, test_index = self._split(first, values[first.name], rows, seed)
        features, feature_notes = fit_features(columns, train_index)
        examples = Split(inputs=features.encode(columns), targets=values, ids=torch.arange(rows))
        train, validation = examples.select(train_index), examples.select(validation_index)
        test = examples.select(test_index)
        if test_table is not None:
            test = self._read_test(test_table, features, columns, tasks, first_id=rows)
        final = tuple(with_statistics(task, train.targets[task.name]) for task in tasks.values())
        development = make_development(name=self.name, tasks=final, train=train, validation=validation)
        absent = absent_notes(final, {"validation": validation, "test": test})
        return Problem(development=development, test=test, notes=(*task_notes, *notes, *feature_notes, *absent))

    def _feature_names(self, table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.features is not None:
            return _names(self.features), ()
        if table.part == "array":
            return ("x",), ()
        others = [name for name in table.columns if name not in _names(self.target)]
        numbers = [name for name in others if content(table.columns[name]) in ("floats", "integers", "booleans")]
        left_out = [name for name in others if name not in numbers]
        if not numbers:
            raise DataError(f"{table.file} has no column of numbers besides the target. Name columns in `features`.")
        if not left_out:
            return tuple(numbers), ()
        named = ", ".join(f"`{name}`" for name in left_out)
        return tuple(numbers), (
            f"Left out, since they do not hold numbers: {named}; name them in `features` to use them.",
        )

    def _tasks(self, targets: Mapping[str, Array]) -> tuple[dict[str, Task], tuple[str, ...]]:
        tasks, notes = {}, []
        for name, values in targets.items():
            meant = (self.kinds or {}).get(name)
            kind = meant or infer_kind(values)
            tasks[name] = describe(name, values, kind)
            source = "as set in `kinds`" if meant else f"inferred from {content(values)} (`kinds` changes it)"
            renamed = "" if tasks[name].name == name else f", named `{tasks[name].name}`"
            notes.append(f"Target `{name}` is a {kind} with {tasks[name].outputs} output(s), {source}{renamed}.")
        return tasks, tuple(notes)

    def _split(self, first: Task, values: Tensor, rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        labels = values if first.kind == "classification" else None
        if labels is not None:
            check_counts(first, labels, least=3 if self.test_path is None else 2)
        if self.test_path is None:
            return three_way(
                rows,
                test_fraction=self.test_fraction,
                validation_fraction=self.validation_fraction,
                labels=labels,
                classes=first.classes,
                seed=seed,
            )
        size = count(self.validation_fraction, rows)
        train, validation = split_off(
            torch.arange(rows), size, labels=labels, classes=first.classes, seed=seed, purpose="validation"
        )
        return train, validation, torch.empty(0, dtype=torch.int64)

    def _read_test(
        self,
        table: Table,
        features: Features,
        train_columns: Mapping[str, Array],
        tasks: Mapping[str, Task],
        *,
        first_id: int,
    ) -> Split:
        targets = table.pick(tuple(tasks), "target")
        columns = table.pick(tuple(train_columns), "features")
        rows = table.rows((*targets, *columns), least=1)
        for name, train_values in train_columns.items():
            _check_alike(table, name, columns[name], train_values)
        values = _encoded(table, targets, tasks)
        return Split(inputs=features.encode(columns), targets=values, ids=torch.arange(first_id, first_id + rows))


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _encoded(table: Table, targets: Mapping[str, Array], tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    return {
        task.name: encode_target(task, targets[name], f"Target `{name}` of {table.file}")
        for name, task in tasks.items()
    }


def _check_alike(table: Table, name: str, values: Array, train_values: Array) -> None:
    strings, train_strings = content(values) == "strings", content(train_values) == "strings"
    if strings != train_strings or values.shape[1:] != train_values.shape[1:]:
        raise DataError(
            f"Feature `{name}` of {table.file} holds {content(values)} of shape {values.shape[1:]} a row; in the "
            f"training file it holds {content(train_values)} of shape {train_values.shape[1:]}."
        )
