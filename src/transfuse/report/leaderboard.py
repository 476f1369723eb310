"""The leaderboard as files: `report/leaderboard.csv` for programs, `report/leaderboard.md` for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from transfuse.report.comparison import Comparison, Row, Table
from transfuse.report.numbers import amount, fixed, spread
from transfuse.report.problems import OverProblems, over_problems
from transfuse.report.tables import difference_text, direction, p_text, places, summary, title


def write_report(comparison: Comparison, folder: Path) -> tuple[Path, Path]:
    """Writes `leaderboard.csv` (unrounded) and `leaderboard.md` into `folder`, which is made where it is missing.

    Returns:
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv, markdown = folder / "leaderboard.csv", folder / "leaderboard.md"
    comparison.to_frame().to_csv(csv, index=False)
    markdown.write_text(to_markdown(comparison))
    return csv, markdown


def to_markdown(comparison: Comparison) -> str:
    """All tables, notes and failed jobs as Markdown."""
    parts = ["# Leaderboard", f"Sweep `{comparison.sweep}`."]
    for table in comparison.tables:
        parts += [f"## {title(table)}", _grid(table, comparison.level), _list(table.notes), _normalized(table)]
    for found in over_problems(comparison.tables, comparison.level):
        parts += [f"## All problems, by {found.metric}", _ranks(found), _list(found.sentences)]
    parts += ["## Jobs", _list([line.strip() for line in summary(comparison)])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _grid(table: Table, level: float) -> str:
    header = [
        "strategy",
        f"{table.metric} ({direction(table.higher_is_better)})",
        f"{table.beside} ({direction(table.beside_higher_is_better)})",
        f"difference [{100 * level:g} % interval]",
        "p (Holm)",
        "verdict",
        "seeds",
        "base models, s",
        "fusing, s",
        "parameters",
        "latency, ms",
    ]
    alignment = ["---", *["---:"] * 4, "---", *["---:"] * 5]
    return "\n".join(_line(cells) for cells in (header, alignment, *(_cells(table, row) for row in table.rows)))


def _normalized(table: Table) -> str:
    """A table of the tasks one by one; empty where no run has normalized scores."""
    tasks = list(dict.fromkeys(task for row in table.rows for task in row.normalized))
    if not tasks:
        return ""
    rows = [
        (f"`{row.strategy}`", *(fixed(row.normalized.get(task, math.nan), 4) for task in tasks)) for row in table.rows
    ]
    grid = [_line(cells) for cells in (("strategy", *tasks), ("---", *["---:"] * len(tasks)), *rows)]
    said = f"Each task's score divided by its network's in {table.reference} (1: as good; higher is better):"
    return "\n".join([said, "", *grid])


def _ranks(found: OverProblems) -> str:
    rows = [(f"`{found.strategies[index]}`", f"{found.ranking.mean_ranks_K[index]:.2f}") for index in found.order]
    return "\n".join(_line(cells) for cells in (("strategy", "mean rank"), ("---", "---:"), *rows))


def _cells(table: Table, row: Row) -> list[str]:
    digits, beside_digits = places(table)
    costs = [row.cost.get(name) for name in ("base_seconds", "fuse_seconds", "parameters", "latency_ms")]
    return [
        f"`{row.strategy}`",
        spread(row.mean, row.sd, digits),
        spread(row.beside, row.beside_sd, beside_digits),
        difference_text(row, digits),
        p_text(row.p_holm),
        row.verdict or "-",
        str(len(row.seeds)),
        *map(amount, costs),
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _list(lines: Sequence[str]) -> str:
    return "\n".join("- " + " ".join(line.split()) for line in lines)
