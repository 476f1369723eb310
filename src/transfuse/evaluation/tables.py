"""The analysis of test predictions as files: tables for programs and spreadsheets, `summary.json` for numbers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from transfuse.evaluation.analysis import Analysis
from transfuse.metrics import metric_names
from transfuse.metrics.calibration import NUM_BINS
from transfuse.types import Task

POINTS = 100  # of the risk-coverage curve at most

_Row = tuple[object, ...]


class _Table(NamedTuple):
    """A file, its columns after `task`, and the rows of one task; without rows there is no file."""

    file: str
    columns: tuple[str, ...]
    rows: Callable[[Analysis], Iterable[_Row]]


def write_tables(folder: Path, analyses: Sequence[Analysis]) -> None:
    """Writes the tables that are defined for these tasks, and `summary.json` (task -> name -> number), into `folder`.

    * `calibration.csv`: reliability bins that hold examples: bounds, n, mean confidence, accuracy.
    * `per_class.csv`: support, precision, recall, F1 and AUROC of each class or label.
    * `per_target.csv`: the metrics of each target of a regression task.
    * `confusion.csv`: count of each pair of actual and predicted class that occurs.
    * `risk_coverage.csv`: coverage, risk and threshold, at most 100 points.
    * `diversity.csv`: measures of each pair of members; their names differ by the kind of task.

    The first column is the task; what is undefined is empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file, columns, rows in (*_TABLES, _diversity(analyses)):
        lines = [(analysis.task.name, *row) for analysis in analyses for row in rows(analysis)]
        if lines:
            write_table(folder / file, ("task", *columns), lines)
    summary = {analysis.task.name: analysis.numbers for analysis in analyses}
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def names_of(task: Task) -> tuple[str, ...]:
    """Names of the classes, labels or targets; their numbers where they have no names."""
    return task.classes or tuple(str(index) for index in range(task.outputs))


def _calibration(analysis: Analysis) -> Iterator[_Row]:
    if (table := analysis.calibration) is not None:
        columns = (table.bins.tolist(), table.counts.long().tolist(), table.confidences.tolist())
        for index, count, confidence, accuracy in zip(*columns, table.accuracies.tolist(), strict=True):
            yield index, index / NUM_BINS, (index + 1) / NUM_BINS, count, confidence, accuracy


def _per_class(analysis: Analysis) -> Iterator[_Row]:
    if (found := analysis.by_class) is not None:
        measures = (found.precision_C, found.recall_C, found.f1_C, found.auroc_C)
        columns = (found.support_C.long().tolist(), *(values_C.tolist() for values_C in measures))
        yield from zip(names_of(analysis.task), *columns, strict=True)


def _per_target(analysis: Analysis) -> Iterator[_Row]:
    for name, scores in zip(names_of(analysis.task), analysis.by_target, strict=False):
        yield name, *(scores.get(metric, math.nan) for metric in metric_names("regression"))


def _confusion(analysis: Analysis) -> Iterator[_Row]:
    if (matrix_CC := analysis.confusion_CC) is not None:
        names, pairs = names_of(analysis.task), matrix_CC.nonzero()
        for (actual, predicted), count in zip(pairs.tolist(), matrix_CC[pairs.unbind(1)].tolist(), strict=True):
            yield names[actual], names[predicted], count


def _risk_coverage(analysis: Analysis) -> Iterator[_Row]:
    if analysis.risk_coverage is not None:
        curve = analysis.risk_coverage.thinned(POINTS)
        columns = (curve.coverages_N.tolist(), curve.risks_N.tolist(), curve.thresholds_N.tolist())
        yield from zip(*columns, strict=True)


_TABLES = (
    _Table("calibration.csv", ("bin", "low", "high", "n", "confidence", "accuracy"), _calibration),
    _Table("per_class.csv", ("class", "support", "precision", "recall", "f1", "auroc"), _per_class),
    _Table("per_target.csv", ("target", *metric_names("regression")), _per_target),
    _Table("confusion.csv", ("actual", "predicted", "n"), _confusion),
    _Table("risk_coverage.csv", ("coverage", "risk", "threshold"), _risk_coverage),
)


def _diversity(analyses: Sequence[Analysis]) -> _Table:
    """Pairs of members; the columns are the measures that any of the tasks has."""
    found = [analysis.diversity for analysis in analyses if analysis.diversity is not None]
    measures = tuple(dict.fromkeys(name for one in found for name in one.pairwise))

    def rows(analysis: Analysis) -> Iterator[_Row]:
        if (one := analysis.diversity) is not None:
            values = {name: measure_MM.tolist() for name, measure_MM in one.pairwise.items()}
            for first, second in combinations(range(len(one.members)), 2):
                cells = (values[name][first][second] if name in values else math.nan for name in measures)
                yield one.members[first], one.members[second], *cells

    return _Table("diversity.csv", ("first", "second", *measures), rows)


def write_table(path: Path, columns: Sequence[str], lines: Iterable[_Row]) -> None:
    """Writes a CSV file; what is undefined (NaN or None) is an empty cell."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if cell is None or cell != cell else cell for cell in line] for line in lines)
