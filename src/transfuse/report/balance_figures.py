"""The figures of a multi-task training: losses and weights of the tasks, and the cosines of their gradients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfuse.report.figures import panel_with_words
from transfuse.report.pictures import DPI, SMALL, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PAIRS = 45  # rows that can still be read
_LOSS = re.compile(r"train/(.+)/loss")
_WEIGHT = re.compile(r"balance/(.+)/weight")
_COSINE = re.compile(r"balance/cos/(.+)/(.+)(?<!/minimum)")
_MARKS = "osv^D*XP<>hp+x"


def write_balance_figures(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Draws `task_losses.png`, `balance_weights.png` and `balance_cosines.png`, as far as the history has them.

    Args:
        folder: of the run's analysis; it exists.
        history: of the fused network's training, a row an epoch.
    """
    losses, weights, cosines = (_curves(history, pattern) for pattern in (_LOSS, _WEIGHT, _COSINE))
    if not weights:
        return
    figures = {"balance_weights": curves_figure(weights, "weight of each task", "mean over the epoch")}
    if losses:
        figures["task_losses"] = curves_figure(losses, "training loss of each task", "loss", logarithmic=True)
    if cosines:
        figures["balance_cosines"] = cosines_figure(cosines)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def curves_figure(curves: Mapping[str, Sequence[float]], title: str, y: str, *, logarithmic: bool = False) -> Figure:
    """One line a task over epochs; marks tell tasks apart where colors do not."""
    figure = canvas(3.4 + 0.16 * len(curves))
    axes = panel_with_words(figure, title, "epoch", y, margin=0.7)
    for index, (task, values) in enumerate(curves.items()):
        epochs = np.arange(1, len(values) + 1)
        step = max(1, len(values) // 8)
        axes.plot(epochs, values, label=task, linewidth=1.2, marker=_MARKS[index % len(_MARKS)], markersize=4,
                  markevery=step)  # fmt: skip
    if logarithmic and all(value > 0 for values in curves.values() for value in values if value == value):
        axes.set_yscale("log")
    axes.legend(fontsize=SMALL, frameon=False)
    return figure


def cosines_figure(cosines: Mapping[str, Sequence[float]]) -> Figure:
    """Pairs of tasks by epochs: blue agree, red conflict. Of too many pairs those that conflict most."""
    shown = sorted(cosines, key=lambda pair: float(np.nanmean(cosines[pair])))[:MOST_PAIRS]
    values = np.array([cosines[pair] for pair in cosines if pair in shown])
    figure = canvas(1.6 + 0.22 * len(values))
    chosen = f", {MOST_PAIRS} lowest of {len(cosines)}" if len(shown) < len(cosines) else ""
    title = f"cosine of the tasks' gradients{chosen}"
    axes = panel_with_words(figure, title, "epoch", "", margin=1.4)
    image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest",
                        extent=(0.5, values.shape[1] + 0.5, len(values) - 0.5, -0.5))  # fmt: skip
    axes.set_yticks(range(len(values)), [pair for pair in cosines if pair in shown], fontsize=SMALL)
    bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def _curves(history: Sequence[Mapping[str, float]], pattern: re.Pattern[str]) -> dict[str, list[float]]:
    """Task, or `a, b` of a pair -> its value in each epoch; NaN where an epoch has none."""
    names = dict.fromkeys(name for row in history for name in row if pattern.fullmatch(name))
    return {
        ", ".join(match.groups()): [float(row.get(name, np.nan)) for row in history]
        for name in names
        if (match := pattern.fullmatch(name)) is not None
    }
