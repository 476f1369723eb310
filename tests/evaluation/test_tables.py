from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.evaluation.predicted import MEMBERS, SHAPE, SIZE, TAGS, result_of
from transfuse.evaluation import analyse, write_tables
from transfuse.types import Task


def write(folder: Path, *tasks: Task, members: bool = True) -> dict[str, pd.DataFrame]:
    write_tables(folder, analyse(result_of(*tasks, members=members), tasks, MEMBERS))
    return {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}


def test_tables_of_all_kinds_hold_what_is_defined(tmp_path: Path) -> None:
    tables = write(tmp_path / "analysis", SHAPE, TAGS, SIZE)
    assert {name: sorted(set(table["task"])) for name, table in tables.items()} == {
        "calibration": ["shape", "tags"],
        "per_class": ["shape", "tags"],
        "per_target": ["size"],
        "confusion": ["shape"],
        "risk_coverage": ["shape", "tags"],
        "diversity": ["shape", "size", "tags"],
    }
    assert list(tables["calibration"]) == ["task", "bin", "low", "high", "n", "confidence", "accuracy"]
    assert list(tables["per_class"]) == ["task", "class", "support", "precision", "recall", "f1", "auroc"]
    assert list(tables["per_target"]) == ["task", "target", "rmse", "mae", "r2"]
    assert list(tables["confusion"]) == ["task", "actual", "predicted", "n"]
    assert list(tables["risk_coverage"]) == ["task", "coverage", "risk", "threshold"]
    assert list(tables["diversity"])[:3] == ["task", "first", "second"] and len(tables["diversity"]) == 9
    assert list(tables["per_class"]["class"]) == ["disc", "box", "star", "0", "1"]
    assert list(tables["per_target"]["target"]) == ["height", "width"]


def test_cells_are_those_of_the_analysis(tmp_path: Path) -> None:
    tables = write(tmp_path, SHAPE)
    (found,) = analyse(result_of(SHAPE), [SHAPE], MEMBERS)
    assert found.calibration is not None and found.confusion_CC is not None and found.diversity is not None
    calibration = tables["calibration"]
    assert calibration["n"].tolist() == found.calibration.counts.tolist()
    assert calibration["accuracy"].tolist() == found.calibration.accuracies.tolist()
    assert (calibration["low"] <= calibration["confidence"]).all()
    assert (calibration["confidence"] <= calibration["high"]).all()
    counts = tables["confusion"].set_index(["actual", "predicted"])["n"]
    assert counts.sum() == 39 and counts["disc", "disc"] == found.confusion_CC[0, 0] and (counts > 0).all()
    pairs = tables["diversity"].set_index(["first", "second"])
    assert list(pairs.index) == [("one", "two"), ("one", "three"), ("two", "three")]
    assert pairs.loc[("one", "three"), "kappa"] == float(found.diversity.pairwise["kappa"][0, 2])
    assert json.loads((tmp_path / "summary.json").read_text()) == {"shape": found.numbers}


def test_a_table_without_rows_is_not_written(tmp_path: Path) -> None:
    assert set(write(tmp_path, SIZE, members=False)) == {"per_target"}
    assert json.loads((tmp_path / "summary.json").read_text()) == {"size": {}}


def test_what_is_undefined_is_an_empty_cell(tmp_path: Path) -> None:
    absent = Task(name="shape", kind="classification", outputs=3)
    result = result_of(absent)
    result.targets["shape"][result.targets["shape"] == 2] = 1
    result.outputs["shape"][:, 2] = -50
    from transfuse.metrics import scores_and_classes

    found = scores_and_classes(absent, result.outputs["shape"], result.targets["shape"])[1]
    assert found is not None
    result.by_class["shape"] = found
    write_tables(tmp_path, analyse(result, [absent], MEMBERS))
    assert (tmp_path / "per_class.csv").read_text().splitlines()[3] == "shape,2,0,,,,"


def test_the_risk_coverage_curve_is_thinned(tmp_path: Path) -> None:
    curve = write(tmp_path, TAGS)["risk_coverage"]
    assert len(curve) == 77
    many = Task(name="tags", kind="multilabel", outputs=5)
    thin = write(tmp_path, many)["risk_coverage"]
    assert len(thin) == 100 and thin["coverage"].iloc[-1] == pytest.approx(1)
