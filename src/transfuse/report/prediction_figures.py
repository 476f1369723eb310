"""The figures of a sweep that are computed from stored predictions: reliability and the members' disagreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transfuse.report.calibration import Calibrated
from transfuse.report.diversity import PoolDiversity
from transfuse.report.figures import pairs_figure
from transfuse.report.pictures import BLUE, GRAY, INK, SMALL, WIDTH, Picture, canvas, panel, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = 1.62  # inches of a reliability panel
_HEAD = 0.92  # inches above and below it
_LETTERS = 30  # of a line above it


def reliability_figure(found: Sequence[Calibrated], *, name: str) -> Picture:
    """Reliability diagrams, two a row: share of right decisions against confidence."""
    num_rows = math.ceil(len(found) / 2)
    height = num_rows * (_SIDE + _HEAD) + 0.1
    figure = canvas(height)
    for index, entry in enumerate(found):
        row, column = divmod(index, 2)
        left = 0.5 + column * (_SIDE + 0.62)
        bottom = height - (row + 1) * (_SIDE + _HEAD) + 0.38
        axes = panel(figure, left, bottom, WIDTH - left - _SIDE, height - bottom - _SIDE)
        _reliability(axes, entry)
        axes.set_xlabel("confidence", fontsize=SMALL, labelpad=2)
        if column == 0:
            axes.set_ylabel("share right", fontsize=SMALL, labelpad=2)
    listed = "; ".join(f"{entry.place} {entry.label}: ECE {entry.ece:.4f}" for entry in found)
    return Picture(
        name=name,
        caption=(
            "Reliability over the test examples of all seeds, in 15 bins of equal width. On the dashed diagonal, "
            "confidences are true; below it they are too high. Dots grow with the number of examples, bars are the gap."
        ),
        alt=f"Reliability diagrams, share of right decisions against confidence. {listed}.",
        png=png(figure),
    )


def diversity_figure(pool: PoolDiversity, *, name: str) -> Picture:
    """How much each two members of a pool differ, as a matrix of numbers."""
    measure = pool.measure.replace("_", " ")
    title = f"{pool.pool}: mean {measure} {pool.numbers.get(pool.measure, math.nan):.4f}"
    return Picture(
        name=name,
        caption=(
            f"{measure.capitalize()} of each two members on the test split (mean over seeds); darker is more. Members "
            "that decide alike have nothing to add to each other."
        ),
        alt=f"Matrix of the pairwise {measure} of {len(pool.members)} members. {title}.",
        png=png(pairs_figure(pool.pairs_MM, pool.members, title=title)),
    )


def _reliability(axes: Axes, entry: Calibrated) -> None:
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=(0, (4, 3)))
    x, y = entry.table.confidences.tolist(), entry.table.accuracies.tolist()
    shares = (entry.table.counts / entry.table.counts.sum()).tolist()
    axes.vlines(x, y, x, color=BLUE, linewidth=3, alpha=0.25)
    axes.plot(x, y, color=BLUE, linewidth=0.9)
    axes.scatter(x, y, s=[8 + 60 * share for share in shares], color=BLUE, edgecolors="white", linewidths=0.5, zorder=3)
    axes.text(0.04, 0.93, f"ECE {entry.ece:.4f}", fontsize=SMALL, transform=axes.transAxes, color=INK)
    name, _, settings = entry.label.partition(" ")
    family, slash, method = name.rpartition("/")
    lines = [f"{entry.place} {family}{slash}", method, settings]
    short = [line if len(line) <= _LETTERS else f"{line[: _LETTERS - 3]}..." for line in lines if line]
    axes.set_title("\n".join(short), fontsize=SMALL, loc="left", color=INK, pad=4)
