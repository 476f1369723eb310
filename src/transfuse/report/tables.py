"""The leaderboard on a terminal, readable from 100 columns on and without color."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from transfuse.report.comparison import Comparison, Row, Table
from transfuse.report.numbers import UNKNOWN, amount, decimals, fixed, signed, spread

WIDE = 128
_LABEL = 28
_STYLES = {"better": "bold green", "worse": "red", "inconclusive": "dim", "reference": "bold"}
_COST = (
    ("base models\nseconds", "base_seconds"),
    ("fusing\nseconds", "fuse_seconds"),
    ("parameters", "parameters"),
    ("latency\nms", "latency_ms"),
)
_BUDGET = (("optimizer\nsteps", "steps"), ("trials", "trials"), ("validation\nlooks", "validation_looks"))


def render(comparison: Comparison) -> RenderableType:
    """What to print: two tables (results, cost) for each data set and model, failed jobs, base models."""
    return _Leaderboard(comparison=comparison)


@dataclass(frozen=True, kw_only=True)
class _Leaderboard:
    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        for table in self.comparison.tables:
            yield Text(title(table), style="bold")
            yield _results(table, self.comparison.level, wide)
            yield Text()
            yield from _costs(table, wide)
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


def _results(table: Table, level: float, wide: bool) -> RichTable:
    digits, beside_digits = places(table)
    grid = _grid(
        f"{table.metric}\n{direction(table.higher_is_better)}",
        f"{table.beside}\n{_shortened(direction(table.beside_higher_is_better), wide)}",
        f"difference [{100 * level:g} % interval]",
        *(["p\n(Holm)"] if wide else []),
    )
    grid.add_column("verdict", no_wrap=True)
    for row in table.rows:
        beside = spread(row.beside, row.beside_sd, beside_digits) if wide else fixed(row.beside, beside_digits)
        verdict = row.verdict or UNKNOWN
        cells = [spread(row.mean, row.sd, digits), beside, difference_text(row, digits)]
        cells += [p_text(row.p_holm)] if wide else []
        grid.add_row(_label(row.strategy, wide), *map(Text, cells), Text(verdict, style=_STYLES.get(verdict, "")))
    return grid


def _costs(table: Table, wide: bool) -> Iterator[RenderableType]:
    """What each strategy took, of what the records know."""
    columns = [(header, [row.cost.get(name) for row in table.rows]) for header, name in _COST]
    columns += [(header, [row.budget.get(name) for row in table.rows]) for header, name in _BUDGET]
    known = [(header, values) for header, values in columns if any(value is not None for value in values)]
    if not known:
        return
    grid = _grid(*(header for header, _ in known))
    for index, row in enumerate(table.rows):
        grid.add_row(_label(row.strategy, wide), *(Text(amount(values[index])) for _, values in known))
    yield grid
    yield Text()


def _grid(*headers: str) -> RichTable:
    # texts, not strings: brackets in numbers and settings are no markup
    columns = [Column(Text(header), justify="right", no_wrap=True) for header in headers]
    return RichTable(
        Column("strategy", overflow="fold"), *columns, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )


def _label(label: str, wide: bool) -> Text:
    """The name, its settings on lines of their own; on a narrow terminal a long name breaks after the family."""
    name, *settings = label.split(" ")
    if len(name) > _LABEL and not wide:
        name = name.replace("/", "/\n  ", 1)
    return Text("\n".join([name, *(f"  {setting}" for setting in settings)]))


def _shortened(text: str, wide: bool) -> str:
    return text if wide else text.partition(" ")[0]


def _lines(lines: tuple[str, ...] | list[str]) -> Group:
    return Group(*(Text(line, overflow="fold") for line in lines))
