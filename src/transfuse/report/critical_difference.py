"""The critical-difference diagram: mean ranks on a line, and which of them cannot be told apart (Demsar 2006)."""

from __future__ import annotations

from transfuse.report.pictures import GRAY, INK, SMALL, USUAL, Picture, canvas, panel, png
from transfuse.report.problems import OverProblems

_LINE, _BAR = 0.22, 0.14  # inches a strategy, and a group


def critical_difference_diagram(found: OverProblems, *, name: str) -> Picture:
    """A line of ranks with the best on the left; strategies below it, thick bars join those that are not told apart."""
    ranking, order = found.ranking, found.order
    bars = _BAR * len(ranking.groups)
    top, bottom = 0.75, 0.1
    height = top + bars + _LINE * len(order) + bottom
    figure = canvas(height)
    axes = panel(figure, 0.25, bottom, 0.25, 0.55)
    worst = len(order)
    axes.set_xlim(0.9, worst + 0.1)
    axes.set_ylim(height - 0.55 - bottom, 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("mean rank, 1 is best", fontsize=USUAL)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    length = min(ranking.critical_difference, worst - 1)
    axes.plot([1, 1 + length], [0.1, 0.1], color=GRAY, linewidth=1.2, marker="|", ms=6)
    axes.text(1 + length, 0.1, f"  critical difference {ranking.critical_difference:.2f}", fontsize=SMALL, va="center")
    for row, group in enumerate(ranking.groups):
        ranks = [ranking.mean_ranks_K[index] for index in group]
        y = 0.2 + _BAR * (row + 0.5)
        axes.plot([min(ranks) - 0.03, max(ranks) + 0.03], [y, y], color=INK, linewidth=3.2, solid_capstyle="butt")
    for row, index in enumerate(order):
        rank, y = ranking.mean_ranks_K[index], 0.2 + bars + _LINE * (row + 0.5)
        axes.plot([rank, rank], [0, y], color=GRAY, linewidth=0.7)
        right = rank > (1 + worst) / 2
        axes.text(
            rank, y, f"{found.strategies[index]}  {rank:.2f} " if right else f" {rank:.2f}  {found.strategies[index]}",
            fontsize=SMALL, va="center", ha="right" if right else "left",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    listed = "; ".join(f"{found.strategies[index]} {ranking.mean_ranks_K[index]:.2f}" for index in order)
    return Picture(
        name=name,
        caption=(
            "Mean ranks over the problems. A thick bar joins strategies whose mean ranks lie within the critical "
            f"difference, {ranking.critical_difference:.2f}: they are not told apart."
        ),
        alt=f"Critical-difference diagram. Mean ranks, best first: {listed}.",
        png=png(figure),
    )
