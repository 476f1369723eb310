"""The leaderboard on a terminal, readable without color and from 80 columns on; from 100 and 128 on it shows more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from transfuse.report.comparison import Comparison, Row, Table
from transfuse.report.numbers import UNKNOWN, amount, decimals, fixed, signed, spread

USUAL, WIDE = 100, 128
_STYLES = {"better": "bold green", "worse": "red", "inconclusive": "dim", "reference": "bold"}
_COST = (
    ("base models\nseconds", "base_seconds"),
    ("fusing\nseconds", "fuse_seconds"),
    ("parameters", "parameters"),
    ("latency\nms", "latency_ms"),
)
_BUDGET = (("steps\ntrained", "steps_taken"), ("validation\nlooks", "validation_looks"))


def render(comparison: Comparison) -> RenderableType:
    """What to print: two tables (results, cost) for each data set and model, failed jobs, base models."""
    return _Leaderboard(comparison=comparison)


@dataclass(frozen=True, kw_only=True)
class _Leaderboard:
    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        for table in self.comparison.tables:
            yield Text(title(table), style="bold")
            yield _results(table, self.comparison.level, width)
            yield Text()
            yield from _costs(table, width)
            yield _lines(table.notes)
            yield Text()
        yield _lines(summary(self.comparison))


def title(table: Table) -> str:
    """Example: `digits, mlp (single_task, 3 seeds)`."""
    seeds = "1 seed" if len(table.seeds) == 1 else f"{len(table.seeds)} seeds"
    return f"{table.data}, {table.model} ({table.kind}, {seeds})"


def summary(comparison: Comparison) -> list[str]:
    """The lines below all tables: base models, notes, failed jobs with their reasons."""
    lines = [f"base models: {comparison.trained} trained, {comparison.reused} reused", *comparison.notes]
    if not comparison.tables:
        lines.insert(0, "no job of this sweep has a result.")
    if comparison.failed:
        lines.append(f"failed jobs: {len(comparison.failed)}")
    return lines + [f"  job {failure.job} ({failure.what}): {failure.reason}" for failure in comparison.failed]


def places(table: Table) -> tuple[int, int]:
    """Decimals of the primary metric (with its differences) and of the metric beside it."""
    halves = [row.difference.half_width for row in table.rows if row.difference is not None]
    first = decimals([row.mean for row in table.rows], [row.sd for row in table.rows] + halves)
    return first, decimals([row.beside for row in table.rows], [])


def difference_text(row: Row, digits: int) -> str:
    """Example: `-0.0044 [-0.0103, +0.0015]`."""
    if row.difference is None:
        return UNKNOWN
    found = row.difference
    ends = f"[{signed(found.low, digits)}, {signed(found.high, digits)}]" if found.low == found.low else "[unknown]"
    return f"{signed(found.estimate, digits)} {ends}"


def p_text(p_value: float) -> str:
    """Example: `0.042`, `<0.001`."""
    return "<0.001" if p_value < 0.001 else fixed(p_value, 3)


def direction(higher_is_better: bool) -> str:
    """The direction of a metric in words."""
    return "higher is better" if higher_is_better else "lower is better"


def _results(table: Table, level: float, width: int) -> RichTable:
    """Scores and verdicts; the p-value and the second metric's spread where there is room, on 80 columns the least."""
    digits, beside_digits = places(table)
    wide, narrow = width >= WIDE, width < USUAL
    beside_direction = direction(table.beside_higher_is_better)
    headers = [
        f"{table.metric}\n{direction(table.higher_is_better)}",
        f"{table.beside}\n{beside_direction if wide else beside_direction.partition(' ')[0]}",
        f"difference{_between(narrow)}[{100 * level:g} % interval]",
        "p\n(Holm)",
    ]
    shown = [True, not narrow, True, wide]
    grid = _grid(*compress(headers, shown))
    grid.add_column("verdict", no_wrap=True)
    for row in table.rows:
        cells = [
            spread(row.mean, row.sd, digits),
            spread(row.beside, row.beside_sd, beside_digits) if wide else fixed(row.beside, beside_digits),
            difference_text(row, digits).replace(" ", _between(narrow), 1),
            p_text(row.p_holm),
        ]
        verdict = Text(row.verdict or UNKNOWN, style=_STYLES.get(row.verdict or "", ""))
        grid.add_row(_label(row.strategy, width), *map(Text, compress(cells, shown)), verdict)
    return grid


def _costs(table: Table, width: int) -> Iterator[RenderableType]:
    """What each strategy took, of what the records know."""
    columns = [(header, [row.cost.get(name) for row in table.rows]) for header, name in _COST]
    if width >= USUAL:
        columns += [(header, [row.budget.get(name) for row in table.rows]) for header, name in _BUDGET]
    known = [(header, values) for header, values in columns if any(value is not None for value in values)]
    if not known:
        return
    grid = _grid(*(header for header, _ in known))
    for index, row in enumerate(table.rows):
        grid.add_row(_label(row.strategy, width), *(Text(amount(values[index])) for _, values in known))
    yield grid
    yield Text()


def _grid(*headers: str) -> RichTable:
    # texts, not strings: brackets in numbers and settings are no markup
    columns = [Column(Text(header), justify="right", no_wrap=True) for header in headers]
    return RichTable(
        Column("strategy", overflow="fold"), *columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )


def _label(label: str, width: int) -> Text:
    """The name, its settings on lines of their own; where there is little room a long name breaks after the family."""
    name, *settings = label.split(" ")
    if len(name) > (width if width >= WIDE else 28 if width >= USUAL else 20):
        name = name.replace("/", "/\n  ", 1)
    return Text("\n".join([name, *(f"  {setting}" for setting in settings)]))


def _between(narrow: bool) -> str:
    return "\n" if narrow else " "


def _lines(lines: tuple[str, ...] | list[str]) -> Group:
    return Group(*(Text(line, overflow="fold") for line in lines))
