"""The figures of a sweep's leaderboard: scores and differences seed by seed, score against cost.

Strategies go by their places in the leaderboard. All is told by place, marker and word; color only repeats it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transfuse.report.numbers import fixed
from transfuse.report.pareto import pareto_front
from transfuse.report.pictures import BLUE, FAINT, GRAY, INK, ORANGE, SMALL, USUAL, Picture, canvas, panel, png
from transfuse.report.ranges import limits, ordinary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "os^Dv<>phX"
_LINE = 0.40  # inches a strategy
_LETTERS = 68  # that fit above a line


@dataclass(frozen=True, kw_only=True)
class Dots:
    """One line of a dot plot.

    Attributes:
        label: of the strategy, with its place.
        values: seed -> value.
        center: their mean.
        low: lower end of the interval; NaN when unknown.
        high: upper end.
        word: at the right end, such as a verdict.
    """

    label: str
    values: dict[int, float]
    center: float
    low: float
    high: float
    word: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """One strategy in a plot of score against cost.

    Attributes:
        place: in the leaderboard, from 1.
        label: of the strategy.
        cost: what it takes; NaN when unknown.
        score: what it gives.
    """

    place: int
    label: str
    cost: float
    score: float


def dot_plot(
    lines: Sequence[Dots], *, name: str, axis: str, caption: str, alt: str, line_at: float | None, digits: int
) -> Picture:
    """Values seed by seed with their mean and interval, a line for each strategy, best first.

    Args:
        lines: the strategies, at least one.
        name: of the file.
        axis: what the values are.
        caption: how to read it.
        alt: what it shows.
        line_at: where a dashed line stands (no difference, or the reference's score); None for none.
        digits: decimals of values that are written.
    """
    seeds = sorted({seed for line in lines for seed in line.values})
    keyed = 1 < len(seeds) <= len(_MARKERS)
    shown = ordinary([line.center for line in lines])
    near = [line for line, inside in zip(lines, shown, strict=True) if inside]
    values = [value for line in near for value in (line.center, *line.values.values())]
    low, high = limits([*values, *([] if line_at is None else [line_at])], [e for x in near for e in (x.low, x.high)])
    figure = canvas(_LINE * len(lines) + 0.75 + 0.3 * keyed)
    axes = panel(figure, 0.15, 0.55, 0.15, 0.2 + 0.3 * keyed)
    axes.set_xlim(low, high)
    axes.set_ylim(len(lines) - 0.4, -0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(axis, fontsize=USUAL)
    if line_at is not None:
        axes.axvline(line_at, color=GRAY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    markers = {seed: _MARKERS[index] if keyed else "o" for index, seed in enumerate(seeds)}
    for row, (line, inside) in enumerate(zip(lines, shown, strict=True)):
        _name(axes, row, line)
        if inside:
            _dots(axes, row, line, markers)
        elif math.isfinite(line.center):
            _outside(axes, row, line, digits)
    if keyed:
        for seed in seeds:
            axes.plot([], [], markers[seed], mfc="none", mec=INK, ms=4.5, label=f"seed {seed}")
        place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": min(5, len(seeds))}
        axes.legend(fontsize=SMALL, frameon=False, handletextpad=0.1, columnspacing=1.0, **place)
    return Picture(name=name, caption=caption, alt=alt, png=png(figure))


def cost_plot(
    points: Sequence[Point], *, name: str, cost: str, score: str, higher_is_better: bool, caption: str
) -> Picture:
    """Score against cost, with the Pareto front: filled diamonds on a stepped line; the others are hollow circles."""
    front = pareto_front([p.cost for p in points], [p.score for p in points], higher_is_better=higher_is_better)
    known = [index for index, point in enumerate(points) if math.isfinite(point.cost) and math.isfinite(point.score)]
    near = dict(zip(known, ordinary([points[index].score for index in known]), strict=True))
    inside = [index for index in known if near[index]]
    figure = canvas(3.5)
    axes = panel(figure, 0.75, 0.55, 0.2, 0.35)
    costs = [points[index].cost for index in known]
    if min(costs) > 0 and max(costs) > 20 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(min(costs) / 1.4, max(costs) * 1.6)
    else:
        axes.set_xlim(*limits([*costs, 0.0]))
    low, high = limits([points[index].score for index in inside])
    axes.set_ylim(low, high)
    axes.set_xlabel(f"{cost} (less is better)", fontsize=USUAL)
    axes.set_ylabel(f"{score} ({'higher' if higher_is_better else 'lower'} is better)", fontsize=USUAL)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    path = [index for index in front if near[index]]
    x, y = [points[index].cost for index in path], [points[index].score for index in path]
    axes.step(x, y, where="post", color=BLUE, linewidth=1.2, zorder=2)
    axes.plot(x, y, "D", color=BLUE, ms=6, label="on the front", zorder=3)
    rest = [index for index in inside if index not in front]
    x, y = [points[index].cost for index in rest], [points[index].score for index in rest]
    axes.plot(x, y, "o", mfc="white", mec=ORANGE, mew=1.2, ms=6, label="beaten in cost and score", zorder=3)
    above = [index for index in known if not near[index]]
    ends = [high if points[index].score > high else low for index in above]
    x = [points[index].cost for index in above]
    axes.plot(x, ends, "x", color=ORANGE, ms=6, mew=1.6, clip_on=False, zorder=4, label="_" if not above else "far off")
    _places(axes, [points[i] for i in inside + above], [points[i].score for i in inside] + ends)
    place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.45, 1.0), "ncols": 3}
    axes.legend(fontsize=SMALL, frameon=False, handletextpad=0.2, columnspacing=1.0, **place)
    members = "; ".join(f"{points[i].place} {points[i].label}" for i in front)
    alt = f"{score} against {cost}, a point for each of {len(known)} strategies. On the Pareto front: {members}."
    return Picture(name=name, caption=caption, alt=alt, png=png(figure))


def _name(axes: Axes, row: int, line: Dots) -> None:
    """The label above its line, with the word at the right end."""
    label = line.label if len(line.label) <= _LETTERS - len(line.word) else f"{line.label[: _LETTERS - 3]}..."
    # a white ground keeps the dashed line out of the letters
    style: dict[str, Any] = {
        "fontsize": SMALL,
        "va": "center",
        "color": INK,
        "bbox": {"color": "white", "pad": 0.6, "linewidth": 0},
    }
    axes.text(0, row - 0.38, label, transform=axes.get_yaxis_transform(), zorder=0.5, **style)
    weight = "bold" if line.word in ("better", "worse") else "normal"
    style |= {"ha": "right", "weight": weight}
    axes.text(1, row - 0.38, line.word, transform=axes.get_yaxis_transform(), zorder=0.5, **style)


def _dots(axes: Axes, row: int, line: Dots, markers: dict[int, str]) -> None:
    if math.isfinite(line.low):
        axes.plot([line.low, line.high], [row, row], color=BLUE, linewidth=1.6, alpha=0.55, zorder=1)
    axes.plot([line.center], [row], "|", color=BLUE, ms=13, mew=2.4, zorder=2)
    for seed, value in line.values.items():
        axes.plot([value], [row], markers[seed], mfc="none", mec=INK, ms=4.5, mew=0.9, zorder=3)


def _outside(axes: Axes, row: int, line: Dots, digits: int) -> None:
    """A strategy far away from all others: its value in words at the edge that it lies behind."""
    right = line.center > axes.get_xlim()[1]
    text = f"off the axis: {fixed(line.center, digits)} " + ("\N{RIGHTWARDS ARROW}" if right else "")
    text = text if right else f"\N{LEFTWARDS ARROW} {text}"
    place: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "ha": "right" if right else "left",
    }
    axes.text(1 if right else 0, row, text, fontsize=SMALL, color=ORANGE, **place)


def _places(axes: Axes, points: Sequence[Point], heights: Sequence[float]) -> None:
    """Writes each point's place beside it, where it covers neither a point nor another number."""
    spots = axes.transData.transform([(point.cost, y) for point, y in zip(points, heights, strict=True)])
    scale = axes.figure.dpi / 72
    taken = [(x, y) for x, y in spots]
    around = [
        (math.cos(a), math.sin(a)) for a in (math.pi * k / 8 for k in (1, 0, 2, 14, 4, 12, 6, 10, 8, 7, 9, 15, 3))
    ]
    for point, (x, y) in zip(points, spots, strict=True):
        tries = [(x + r * scale * dx, y + r * scale * dy) for r in (10, 15, 21, 28) for dx, dy in around]
        free = [t for t in tries if all(abs(t[0] - a) > 9 * scale or abs(t[1] - b) > 7.5 * scale for a, b in taken)]
        spot = (free or tries)[0]
        taken.append(spot)
        ends: dict[str, Any] = {"xytext": ((spot[0] - x) / scale, (spot[1] - y) / scale), "textcoords": "offset points"}
        far = math.hypot(*ends["xytext"]) > 12
        line = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.5, "shrinkA": 4, "shrinkB": 3} if far else None
        height = float(axes.transData.inverted().transform((x, y))[1])
        axes.annotate(
            str(point.place), (point.cost, height), **ends, fontsize=SMALL, ha="center", va="center", arrowprops=line,
            annotation_clip=False, zorder=5,
        )  # fmt: skip
