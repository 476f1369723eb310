"""The report's tables as text, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transfuse.metrics import higher_is_better, metric_names
from transfuse.report.calibration import Calibrated
from transfuse.report.comparison import Row, Table
from transfuse.report.contests import Contest
from transfuse.report.diversity import PoolDiversity
from transfuse.report.numbers import amount, decimals, fixed, spread
from transfuse.report.per_class import ByClass
from transfuse.report.sweeps import Failure
from transfuse.report.tables import difference_text, direction, p_text, places
from transfuse.types import Task

_SIGNS = {
    "better": "\N{BLACK UP-POINTING TRIANGLE}",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE}",
    "inconclusive": "\N{WHITE CIRCLE}",
    "reference": "\N{BLACK DIAMOND}",
}
_COST = (
    ("base models, s", "base_seconds"),
    ("fusing, s", "fuse_seconds"),
    ("parameters", "parameters"),
    ("FLOPs an example", "flops_per_example"),
    ("latency, ms", "latency_ms"),
    ("peak memory, MB", "peak_memory_mb"),
)
_BUDGET = (
    ("epochs", "epochs"),
    ("steps allowed", "steps"),
    ("steps trained", "steps_taken"),
    ("validation looks", "validation_looks"),
    ("trials", "trials"),
)
_DIVERSITY = (
    ("disagreement", "disagreement"),
    ("error correlation", "error_correlation"),
    ("Q statistic", "q_statistic"),
    ("both wrong", "double_fault"),
    ("residual correlation", "residual_correlation"),
    ("ambiguity", "ambiguity"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: its text, and a word on how it is drawn (`verdict`, `number`, `up`, `down`, or nothing)."""

    text: str
    kind: str = "number"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One table; the first column names the row.

    Attributes:
        caption: what it shows.
        headers: of all columns.
        rows: cells of all columns.
        stacked: whether a phone shows each row as a card, else the table scrolls sideways.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stacked: bool = False


def named(table: Table, place: int) -> str:
    """Example: `3 output_fusion/average`."""
    return f"{place} {table.rows[place - 1].strategy}"


def leaderboard(table: Table, level: float) -> Grid:
    """Scores, differences and verdicts, best first."""
    digits, beside_digits = places(table)
    headers = (
        "strategy",
        "verdict",
        f"{table.metric} ({direction(table.higher_is_better)})",
        f"difference [{100 * level:g} % interval]",
        "p (Holm)",
        f"{table.beside} ({direction(table.beside_higher_is_better)})",
        "seeds",
    )
    rows = [
        (
            Cell(text=named(table, place), kind="name"),
            _verdict(row),
            Cell(text=_plus_minus(spread(row.mean, row.sd, digits))),
            Cell(text=difference_text(row, digits)),
            Cell(text=p_text(row.p_holm)),
            Cell(text=_plus_minus(spread(row.beside, row.beside_sd, beside_digits))),
            Cell(text=str(len(row.seeds))),
        )
        for place, row in enumerate(table.rows, 1)
    ]
    caption = "Mean over seeds \N{PLUS-MINUS SIGN} standard deviation on the test split, best first."
    return Grid(caption=caption, headers=headers, rows=tuple(rows), stacked=True)


def costs(table: Table) -> Grid:
    """What each strategy took, of what the records know."""
    return _amounts(table, _COST, "cost", "What each strategy took: means over seeds.")


def budgets(table: Table) -> Grid:
    """What each strategy was allowed and took, of what the records know."""
    caption = "What each strategy was allowed (epochs or steps, trials) and took (steps, looks at validation data)."
    return _amounts(table, _BUDGET, "budget", caption)


def scores(contest: Contest, table: Table, task: Task) -> Grid:
    """All test metrics of one task."""
    prefix = "test/" if len(contest.tasks) == 1 else f"test/{task.name}/"
    names = [
        name for name in metric_names(task.kind) if any(_values(contest, row, prefix + name) for row in table.rows)
    ]
    columns = []
    for name in names:
        values = [_values(contest, row, prefix + name) for row in table.rows]
        means = [_mean(known) for known in values]
        deviations = [_deviation(known) for known in values]
        digits = decimals(means, deviations)
        columns.append([spread(mean, sd, digits) for mean, sd in zip(means, deviations, strict=True)])
    rows = [
        (
            Cell(text=named(table, place), kind="name"),
            *(Cell(text=_plus_minus(column[place - 1])) for column in columns),
        )
        for place in range(1, len(table.rows) + 1)
    ]
    arrows = {True: "\N{UPWARDS ARROW}", False: "\N{DOWNWARDS ARROW}"}
    headers = ("strategy", *(f"{name} {arrows[higher_is_better(name)]}" for name in names))
    of = f" of {task.name}" if len(contest.tasks) > 1 else ""
    caption = f"All test scores{of}; an arrow up: higher is better, an arrow down: lower is better."
    return Grid(caption=caption, headers=headers, rows=tuple(rows))


def classes(found: ByClass, table: Table, task: Task) -> Grid:
    """The reference's share of right predictions in percent, and differences to it in percentage points."""
    word = "label" if task.kind == "multilabel" else "class"
    rows = []
    for place, row in enumerate(table.rows, 1):
        if row.verdict == "reference" and place in found.shares:
            cells = [
                Cell(text=fixed(100 * share, 1), kind="number reference") for share in found.shares[place].tolist()
            ]
            name = f"{named(table, place)} (reference, percent)"
        elif place in found.differences:
            cells = [_points(100 * difference) for difference in found.differences[place].tolist()]
            name = named(table, place)
        else:
            continue
        rows.append((Cell(text=name, kind="name"), *cells))
    caption = (
        f"The reference's share of right predictions of each {word}, in percent; the others' differences to it, in "
        "percentage points, means over seeds."
    )
    return Grid(caption=caption, headers=("strategy", *(f"{word} {c}" for c in found.classes)), rows=tuple(rows))


def reliabilities(found: Sequence[Calibrated]) -> Grid:
    """What the reliability diagram shows, in numbers."""
    rows = []
    for entry in found:
        total = entry.table.counts.sum()
        confidence = float((entry.table.counts * entry.table.confidences).sum() / total)
        accuracy = float((entry.table.counts * entry.table.accuracies).sum() / total)
        gap = f"{confidence - accuracy:+.4f}"
        cells = [fixed(entry.ece, 4), fixed(confidence, 4), fixed(accuracy, 4), gap]
        rows.append((Cell(text=f"{entry.place} {entry.label}", kind="name"), *(Cell(text=text) for text in cells)))
    headers = ("strategy", "ECE", "mean confidence", "share right", "too confident by")
    caption = "Expected calibration error (mean over seeds), mean confidence and share of right decisions."
    return Grid(caption=caption, headers=headers, rows=tuple(rows))


def diversities(found: Sequence[PoolDiversity]) -> Grid:
    """Measures of each pool of base models."""
    known = [(header, name) for header, name in _DIVERSITY if any(name in pool.numbers for pool in found)]
    rows = [
        (
            Cell(text=f"{pool.pool} ({len(pool.members)} members)", kind="name"),
            *(Cell(text=fixed(pool.numbers.get(name, math.nan), 4)) for _, name in known),
        )
        for pool in found
    ]
    caption = (
        "Means over pairs of members and seeds. A correlation of 1: all err together. Ambiguity: what the average of "
        "all members gains over a member, in nll (by the geometric mean) or in squared error."
    )
    return Grid(caption=caption, headers=("pool", *(header for header, _ in known)), rows=tuple(rows))


def failures(failed: Sequence[Failure]) -> Grid:
    """Jobs without a result, with their reasons."""
    rows = [tuple(Cell(text=text, kind="text") for text in (f"job {f.job}", f.what, f.reason)) for f in failed]
    return Grid(caption="Jobs without a result.", headers=("job", "what", "reason"), rows=tuple(rows), stacked=True)


def facts(entries: Sequence[tuple[str, str]], caption: str, headers: tuple[str, str]) -> Grid:
    """Names and values."""
    rows = tuple((Cell(text=name, kind="name"), Cell(text=value, kind="text")) for name, value in entries)
    return Grid(caption=caption, headers=headers, rows=rows)


def _amounts(table: Table, columns: Sequence[tuple[str, str]], part: str, caption: str) -> Grid:
    values = [{"cost": row.cost, "budget": row.budget}[part] for row in table.rows]
    known = [(header, name) for header, name in columns if any(name in value for value in values)]
    rows = [
        (Cell(text=named(table, place), kind="name"), *(Cell(text=amount(value.get(name))) for _, name in known))
        for place, value in enumerate(values, 1)
    ]
    return Grid(caption=caption, headers=("strategy", *(header for header, _ in known)), rows=tuple(rows))


def _values(contest: Contest, row: Row, metric: str) -> list[float]:
    found = [entry.record.metrics.get(metric) for entry in contest.entries if entry.label == row.strategy]
    return [value for value in found if value is not None]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _verdict(row: Row) -> Cell:
    word = row.verdict or "-"
    return Cell(text=f"{_SIGNS.get(word, '')} {word}".strip(), kind=f"verdict {word}" if row.verdict else "verdict")


def _points(value: float) -> Cell:
    """Signed, one decimal; drawn by its size in three steps."""
    if math.isnan(value):
        return Cell(text="-")
    step = "" if abs(value) < 0.05 else " small" if abs(value) < 1 else " large"
    return Cell(text=f"{value:+.1f}", kind=f"number {'up' if value > 0 else 'down'}{step}" if step else "number")


def _plus_minus(text: str) -> str:
    return text.replace("+-", "\N{PLUS-MINUS SIGN}")
