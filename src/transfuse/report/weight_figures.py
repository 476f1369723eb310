"""The figures of a weight fusion: paths between members, how far each tensor moved, cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from transfuse.report.figures import key_above, pairs_figure, panel_with_words
from transfuse.report.pictures import BLUE, DPI, FAINT, GRAY, SMALL, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TENSORS = 30  # bars that can still be read


def write_weight_figures(folder: Path, diagnostics: Mapping[str, Any], members: Sequence[str]) -> None:
    """Draws `paths.png`, `weight_geometry.png` and `weight_cosines.png` from the diagnostics of a weight fusion.

    Args:
        folder: of the run's analysis; it exists.
        diagnostics: of the record; without `geometry` (other families) nothing is drawn.
        members: names of the base models.
    """
    geometry, barrier = diagnostics.get("geometry"), diagnostics.get("barrier")
    figures: dict[str, Figure] = {}
    if geometry:
        figures["weight_geometry"] = geometry_figure(geometry)
        if len(members) > 1:
            title = f"cosines of the members' {geometry['vectors']}"
            figures["weight_cosines"] = pairs_figure(torch.tensor(geometry["cosines"]), members, title=title)
    if barrier:
        figures["paths"] = path_figure(barrier, members)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})


def path_figure(barrier: Mapping[str, Any], members: Sequence[str]) -> Figure:
    """The loss along the straight path of each pair of members; the dashed chord is what no barrier is.

    It is that of the first task; where each task has a head of its own, one line for each task of the two ends.
    """
    figure = canvas(3.6)
    metric = barrier["metric"]
    title = f"{metric} between members, largest barrier {barrier['largest']:.3g} {barrier['unit']}"
    axes = panel_with_words(figure, title, "position on the straight path", metric)
    paths = barrier["paths"]
    for path in paths:
        found = list(path["scores"].values())
        for values in [scores[metric] for scores in (found if "excess" in path else found[:1]) if metric in scores]:
            points = [index / (len(values) - 1) for index in range(len(values))]
            axes.plot([0, 1], [values[0], values[-1]], color=FAINT, linewidth=0.8, linestyle="--")
            axes.plot(points, values, color=BLUE, linewidth=1.2, alpha=0.8, marker=".", markersize=4)
    if len(paths) == 1:
        first, second = paths[0]["models"]
        axes.set_xticks([0, 0.5, 1], [members[first], "0.5", members[second]])
    axes.set_ylim(bottom=0)
    return figure


def geometry_figure(geometry: Mapping[str, Any]) -> Figure:
    """Per tensor: mean norm of the vectors, as a share of the base's norm where there is one, and the sign conflict."""
    rows = sorted(geometry["tensors"], key=lambda row: -row["elements"])[:MOST_TENSORS]
    rows = [row for row in geometry["tensors"] if row in rows]
    figure = canvas(2.2 + 0.2 * len(rows))
    relative = all(row["base_norm"] for row in rows)
    what = "mean norm / norm of the start" if relative else f"mean norm of the {geometry['vectors']}"
    axes = panel_with_words(figure, f"{geometry['vectors']} by tensor", what, "", margin=2.0, keyed=True)
    means = [sum(row["norms"]) / len(row["norms"]) / (row["base_norm"] if relative else 1.0) for row in rows]
    places = range(len(rows))
    axes.barh(places, means, color=BLUE, height=0.6, label="how far it moved" if relative else "norm")
    for place, row in enumerate(rows):
        if row["sign_conflict"] is not None and geometry["vectors"] == "task vectors":
            axes.annotate(
                f"{row['sign_conflict']:.0%} conflict", (means[place], place), xytext=(3, 0), color=GRAY,
                textcoords="offset points", va="center", fontsize=SMALL - 1,
            )  # fmt: skip
    axes.set_xlim(0, 1.45 * max([*means, 1e-9]))
    axes.set_yticks(list(places), [_short(row["name"]) for row in rows], fontsize=SMALL - 1)
    axes.invert_yaxis()
    key_above(axes)
    return figure


def _short(name: str) -> str:
    """The end of a long name: the beginning says less."""
    return name if len(name) <= 28 else f"..{name[-26:]}"
