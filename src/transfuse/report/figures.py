"""The figures of one run, from numbers to matplotlib: calibration, risk against coverage, matrices.

Functions return a figure of their own, without pyplot's global state. What a figure says is told by place, length and
written numbers; shades only repeat it.

Dimensions in tensor names: C classes, M members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from transfuse.metrics import Reliability, RiskCoverage
from transfuse.metrics.calibration import NUM_BINS
from transfuse.report.pictures import BLUE, FAINT, GRAY, INK, SMALL, USUAL, canvas, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_WRITTEN = 20  # rows of a matrix whose cells hold their numbers
_SQUARE = 4.4  # inches of height
_DASHED = (0, (4, 3))


def reliability_diagram(table: Reliability, *, title: str) -> Figure:
    """Share of right predictions against confidence, in bins of equal width, each with its number of examples.

    On the dashed diagonal confidences are true. The hatched bar between it and the dot is the gap of the bin.
    """
    figure = canvas(_SQUARE)
    axes = panel_with_words(figure, title, "confidence", "share right", keyed=True)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.08)
    confidence_B, accuracy_B = table.confidences.tolist(), table.accuracies.tolist()
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.9, linestyle=_DASHED, label="confidences are true")
    gaps = [accuracy - confidence for accuracy, confidence in zip(accuracy_B, confidence_B, strict=True)]
    axes.bar(
        confidence_B, gaps, 0.7 / NUM_BINS, confidence_B,
        fill=False, hatch="////", edgecolor=GRAY, linewidth=0.6, label="gap",
    )  # fmt: skip
    axes.plot(confidence_B, accuracy_B, "o", color=BLUE, ms=5, label="share right, with n")
    for x, y, count in zip(confidence_B, accuracy_B, table.counts.long().tolist(), strict=True):
        axes.annotate(str(count), (x, y), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=SMALL)
    key_above(axes)
    return figure


def risk_coverage_plot(curve: RiskCoverage, *, title: str) -> Figure:
    """Error of the most confident predictions against the share of them that is taken; the area is the mean error."""
    figure = canvas(3.4)
    axes = panel_with_words(
        figure, title, "coverage: share of predictions that is taken, surest first", "error among them", keyed=True
    )
    coverages, risks = curve.coverages_N.tolist(), curve.risks_N.tolist()
    axes.step(coverages, risks, where="post", color=BLUE, linewidth=1.4, label=f"area {curve.area:.4f}")
    axes.axhline(risks[-1], color=GRAY, linewidth=0.9, linestyle=_DASHED, label=f"all: {risks[-1]:.4f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max([*risks, 1e-3]) * 1.08)
    axes.grid(color=FAINT, linewidth=0.5)
    key_above(axes)
    return figure


def confusion_figure(counts_CC: Tensor, names: Sequence[str], *, title: str) -> Figure:
    """Confusion matrix: rows are actual classes, columns predicted ones; darker is a larger share of the row."""
    shares_CC = counts_CC.double() / counts_CC.sum(1, keepdim=True).clamp(min=1)
    cells = [[str(count) if count else "" for count in row] for row in counts_CC.tolist()]
    return _matrix(shares_CC, cells, names, title=title, x="predicted", y="actual", largest=1.0)


def pairs_figure(measure_MM: Tensor, names: Sequence[str], *, title: str) -> Figure:
    """A measure of each pair of members as a matrix of numbers; darker is larger in size, undefined cells say so."""
    sizes_MM = measure_MM.abs().fill_diagonal_(0).nan_to_num(0.0)
    rows = enumerate(measure_MM.tolist())
    cells = [
        ["" if i == j else f"{value:.3f}" if value == value else "-" for j, value in enumerate(r)] for i, r in rows
    ]
    return _matrix(sizes_MM, cells, names, title=title, x="", y="", largest=float(sizes_MM.max()))


def _matrix(
    shades_KK: Tensor,
    cells: Sequence[Sequence[str]],
    names: Sequence[str],
    *,
    title: str,
    x: str,
    y: str,
    largest: float,
) -> Figure:
    figure = canvas(_SQUARE)
    axes = panel_with_words(figure, title, x, y, margin=1.0)
    axes.spines[:].set_visible(False)
    # light shades, on which ink can be read
    axes.imshow(shades_KK.numpy(), cmap="Blues", vmin=0, vmax=1.8 * (largest or 1.0), aspect="auto")
    size = len(names)
    shown = range(0, size, -(-size // MOST_WRITTEN))
    labels = [names[index] if len(names[index]) <= 14 else f"{names[index][:12]}.." for index in shown]
    if max(map(len, labels)) > 2:
        axes.set_xticks(shown, labels, fontsize=SMALL, rotation=30, ha="right")
    else:
        axes.set_xticks(shown, labels, fontsize=SMALL)
    axes.set_yticks(shown, labels, fontsize=SMALL)
    axes.tick_params(length=0)
    if size <= MOST_WRITTEN:
        for row, texts in enumerate(cells):
            for column, text in enumerate(texts):
                if text:
                    letters = SMALL if size <= 12 else 0.7 * SMALL
                    axes.text(column, row, text, ha="center", va="center", fontsize=letters, color=INK)
    return figure


def key_above(axes: Axes) -> None:
    """The legend above the axes, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=SMALL, frameon=False, ncols=3, columnspacing=1.0)


def panel_with_words(figure: Figure, title: str, x: str, y: str, *, margin: float = 0.6, keyed: bool = False) -> Axes:
    """Axes with a title and labelled sides; `keyed` leaves room for a legend above them."""
    axes = panel(figure, margin, 0.35 + margin / 2, 0.2, 0.6 if keyed else 0.35)
    axes.set_title(title, fontsize=USUAL, loc="left", color=INK, pad=24 if keyed else 6)
    axes.set_xlabel(x, fontsize=USUAL)
    axes.set_ylabel(y, fontsize=USUAL)
    return axes
