"""The figures of one run as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transfuse.evaluation.analysis import Analysis
from transfuse.evaluation.tables import names_of
from transfuse.report.figures import confusion_figure, pairs_figure, reliability_diagram, risk_coverage_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 120


def write_figures(folder: Path, analyses: Sequence[Analysis]) -> None:
    """Draws `calibration.png`, `risk_coverage.png`, `confusion.png` and `diversity.png`, as far as they are defined.

    With several tasks their numbers and names stand in the names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, analysis in enumerate(analyses):
        suffix = f"-{number}-{re.sub(r'[^A-Za-z0-9_.-]', '_', analysis.task.name)}" if len(analyses) > 1 else ""
        for name, figure in _figures(analysis):
            figure.savefig(folder / f"{name}{suffix}.png", dpi=_DPI, metadata={"Software": None})


def _figures(analysis: Analysis) -> Iterator[tuple[str, Figure]]:
    task = analysis.task.name
    if analysis.calibration is not None:
        title = f"{task}: calibration error {float(analysis.calibration.expected_gap):.4f}"
        yield "calibration", reliability_diagram(analysis.calibration, title=title)
    if analysis.risk_coverage is not None:
        yield "risk_coverage", risk_coverage_plot(analysis.risk_coverage, title=f"{task}: risk and coverage")
    if analysis.confusion_CC is not None:
        names = names_of(analysis.task)
        yield "confusion", confusion_figure(analysis.confusion_CC, names, title=f"{task}: confusions, test examples")
    if analysis.diversity is not None:
        measure, values_MM = next(iter(analysis.diversity.pairwise.items()))
        title = f"{task}: {measure.replace('_', ' ')} of members"
        yield "diversity", pairs_figure(values_MM, analysis.diversity.members, title=title)
