"""Reports: from the records of a sweep to a leaderboard with evidence."""

from __future__ import annotations

from pathlib import Path

from transfuse.report.compare import compare, comparison
from transfuse.report.comparison import Comparison, Row, Table
from transfuse.report.leaderboard import write_report
from transfuse.report.multi_task import Completion, IncomparableBaselineError, UnstableBaselineWarning, add_delta_m
from transfuse.report.sweeps import Failure, Sweep, find_sweep, job_folders, read_sweep
from transfuse.report.tables import WIDE, render

__all__ = [
    "Comparison",
    "Completion",
    "Failure",
    "IncomparableBaselineError",
    "Row",
    "Sweep",
    "Table",
    "UnstableBaselineWarning",
    "add_delta_m",
    "compare",
    "comparison",
    "find_sweep",
    "job_folders",
    "read_sweep",
    "render",
    "report",
    "write_report",
]


def report(sweep: str | Path = "last", outputs: str | Path = "outputs", level: float = 0.95) -> Comparison:
    """Completes the records of a sweep, writes `<sweep>/report/` and prints the leaderboard.

    Args:
        sweep: `last` (the newest) or a sweep folder.
        outputs: where sweeps are written (`paths.outputs`); read for `last` alone.
        level: of the intervals, in (0, 1).

    Returns:
        The comparison; `added` holds what was written back to the runs' records, for the tracker.

    Raises:
        DataError: there is no such sweep.
        IncomparableBaselineError: multi-task runs and their single-task runs differ in model, budget or split.
    """
    from rich.console import Console

    from transfuse.report.html import write_html  # evaluation and figures load only where a page is written

    found = read_sweep(find_sweep(sweep, outputs))
    completion = add_delta_m(found.records)
    result = comparison(found, completion, level)
    folder = found.folder / "report"
    files = write_report(result, folder)
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(width=WIDE + 12)  # long names fit
    console.print(render(result))
    page, *_ = write_html(result, completion.records, folder)
    for file in (*files, page):
        console.print(str(file), highlight=False, soft_wrap=True, markup=False)
    return result
