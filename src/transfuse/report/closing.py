"""The demo's last screen: where the results are and how to open them. `python -m transfuse.report.closing outputs`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from transfuse.report.sweeps import find_sweep


def closing(outputs: Path) -> Panel:
    """A panel with the places of an outputs folder and the commands that open them."""
    newest = find_sweep("last", outputs)
    return Panel(
        "\n".join(
            [
                "[bold]Results[/bold]",
                f"  {outputs}/sweeps/<date>/<time>/report/   one a sweep: report.html, leaderboard.md, .csv",
                f"  {newest}/report/report.html   of the last sweep: open it in a browser",
                f"  {outputs}/store/   base models: a second run reuses them all",
                f"  {outputs}/mlflow.db   every run with its settings, scores and curves",
                "",
                "[bold]Open them[/bold]",
                "  make ui       compare the runs in MLflow: http://127.0.0.1:5000",
                "  make report   print the last leaderboard and write its report.html again",
                "",
                "[bold]Go on[/bold]",
                "  .venv/bin/transfuse strategy=output_fusion/average base_models.count=3",
                "  .venv/bin/transfuse --help",
            ]
        ),
        title="transfuse",
        expand=False,
    )


if __name__ == "__main__":
    Console(width=96).print(closing(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")))
