from __future__ import annotations

import csv
from pathlib import Path

import pytest
from matplotlib.image import imread

from transfuse.evaluation import write_balance_table
from transfuse.report.balance_figures import MOST_PAIRS, cosines_figure, curves_figure, write_balance_figures

HISTORY = [
    {"epoch": 1, "train/a/loss": 2.0, "train/b/loss": 1.0, "balance/a/weight": 1.0, "balance/b/weight": 1.0},
    {
        "epoch": 2,
        "train/a/loss": 1.0,
        "train/b/loss": 0.5,
        "balance/a/weight": 0.5,
        "balance/b/weight": 1.5,
        "balance/a/weight/minimum": 0.1,
        "balance/cos/a/b": -0.25,
        "balance/cos/a/b/minimum": -0.9,
    },
]


def test_the_table_has_a_row_an_epoch(tmp_path: Path) -> None:
    write_balance_table(tmp_path, HISTORY)
    with (tmp_path / "balance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["balance/b/weight"] for row in rows] == ["1.0", "1.5"]
    assert [row["balance/cos/a/b"] for row in rows] == ["", "-0.25"]


def test_a_history_without_balance_writes_nothing(tmp_path: Path) -> None:
    write_balance_table(tmp_path, [{"epoch": 1, "train/loss": 1.0}])
    write_balance_figures(tmp_path, [{"epoch": 1, "train/loss": 1.0, "train/a/loss": 1.0}])
    assert list(tmp_path.iterdir()) == []


def test_figures_are_drawn(tmp_path: Path) -> None:
    write_balance_figures(tmp_path, HISTORY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "balance_cosines.png",
        "balance_weights.png",
        "task_losses.png",
    ]
    for path in tmp_path.iterdir():
        assert imread(path).std() > 0.01


def test_lines_are_the_tasks_values() -> None:
    axes = curves_figure({"a": [1.0, 0.5], "b": [2.0, 0.0]}, "title", "loss", logarithmic=True).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[1.0, 0.5], [2.0, 0.0]]
    assert axes.get_yscale() == "linear"  # a loss of 0 has no logarithm
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_the_heat_map_shows_the_lowest_pairs() -> None:
    cosines = {f"a, {index}": [index / 100.0, index / 100.0] for index in range(MOST_PAIRS + 5)}
    axes = cosines_figure(cosines).axes[0]
    shown = axes.images[0].get_array()
    assert shown is not None and shown.shape == (MOST_PAIRS, 2)
    assert shown.max() == pytest.approx((MOST_PAIRS - 1) / 100)
    assert "lowest of 50" in axes.get_title(loc="left")
