from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from transfuse.evaluation import write_weight_tables
from transfuse.report.weight_figures import geometry_figure, path_figure, write_weight_figures

MEMBERS = ["seeds-0", "seeds-1"]


def row(name: str, norms: list[float]) -> dict[str, Any]:
    return {
        "name": name,
        "elements": 4,
        "norms": norms,
        "base_norm": 2.0,
        "mean_cosine": 0.5,
        "sign_conflict": 0.25,
    }


def diagnostics() -> dict[str, Any]:
    values = [1.0, 2.0, 3.0]
    path = {"models": [0, 1], "barrier": {"y": {"nll": 0.5}}, "scores": {"y": {"nll": values}}}
    return {
        "geometry": {
            "vectors": "task vectors",
            "cosines": [[1.0, 0.5], [0.5, 1.0]],
            "total": row("all", [1.0, 3.0]),
            "tensors": [row("stem.weight", [1.0, 3.0]), row("head.weight", [0.0, 1.0])],
        },
        "barrier": {"metric": "nll", "unit": "nats", "mean": 0.5, "largest": 0.5, "paths": [path]},
    }


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables(tmp_path: Path) -> None:
    write_weight_tables(tmp_path, diagnostics(), MEMBERS)
    geometry = read(tmp_path / "weight_geometry.csv")
    assert [(line["tensor"], line["member"], line["norm"]) for line in geometry[:3]] == [
        ("all", "seeds-0", "1.0"),
        ("all", "seeds-1", "3.0"),
        ("stem.weight", "seeds-0", "1.0"),
    ]
    assert read(tmp_path / "weight_cosines.csv") == [{"first": "seeds-0", "second": "seeds-1", "cosine": "0.5"}]
    paths = read(tmp_path / "paths.csv")
    assert [(line["t"], line["value"]) for line in paths] == [("0.0", "1.0"), ("0.5", "2.0"), ("1.0", "3.0")]


def test_sign_conflicts_before_and_after_trimming(tmp_path: Path) -> None:
    total = {"name": "all", "elements": 8, "sign_conflict": 0.5, "sign_conflict_trimmed": 0.25, "mass_lost": 0.125}
    tensor = {**total, "name": "stem.weight", "sign_conflict_trimmed": None, "mass_lost": None}
    write_weight_tables(tmp_path, {"interference": {"total": total, "tensors": [tensor]}}, MEMBERS)
    assert [list(line.values()) for line in read(tmp_path / "sign_conflicts.csv")] == [
        ["all", "8", "0.5", "0.25", "0.125"],
        ["stem.weight", "8", "0.5", "", ""],
    ]
    write_weight_tables(tmp_path / "none", {"interference": None}, MEMBERS)
    assert not (tmp_path / "none").exists()


def test_other_strategies_have_neither_tables_nor_figures(tmp_path: Path) -> None:
    write_weight_tables(tmp_path, {"entropy": 1.0}, MEMBERS)
    write_weight_figures(tmp_path, {"entropy": 1.0}, MEMBERS)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_images(tmp_path: Path) -> None:
    write_weight_figures(tmp_path, diagnostics(), MEMBERS)
    assert {path.name for path in tmp_path.iterdir()} == {"paths.png", "weight_geometry.png", "weight_cosines.png"}
    for path in tmp_path.iterdir():
        assert imread(path).std() > 0.01


def test_the_path_and_its_chord_are_drawn() -> None:
    axes = path_figure(diagnostics()["barrier"], MEMBERS).axes[0]
    chord, path = axes.lines
    assert chord.get_xydata().tolist() == [[0, 1], [1, 3]]
    assert path.get_xydata().tolist() == [[0, 1], [0.5, 2], [1, 3]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["seeds-0", "0.5", "seeds-1"]


def test_tasks_with_heads_of_their_own_have_a_line_each() -> None:
    scores = {"a": {"nll": [1.0, 2.0]}, "b": {"nll": [3.0, 1.0]}, "value": {"rmse": [1.0, 1.0]}}
    path = {"models": [0, 1], "excess": 0.1, "barrier": {}, "scores": scores}
    barrier = {**diagnostics()["barrier"], "paths": [path]}
    assert [line.get_ydata().tolist() for line in path_figure(barrier, MEMBERS).axes[0].lines[1::2]] == [
        [1.0, 2.0],
        [3.0, 1.0],
    ]
    del path["excess"]  # one set of heads: the first task's alone
    assert len(path_figure(barrier, MEMBERS).axes[0].lines) == 2


def test_bars_are_relative_to_the_start_and_tell_the_conflict() -> None:
    axes = geometry_figure(diagnostics()["geometry"]).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1.0, 0.25])
    assert [text.get_text() for text in axes.texts] == ["25% conflict"] * 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stem.weight", "head.weight"]
