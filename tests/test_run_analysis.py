"""A run writes and tracks the analysis of its test predictions, beside its scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import transfuse
from tests.evaluation.predicted import MEMBERS, SHAPE, result_of
from transfuse.config import read
from transfuse.evaluation import analyse
from transfuse.experiment import show
from transfuse.strategy.base import FusedModel
from transfuse.suggest import CONF
from transfuse.tracking import MlflowTracker, Tracker

TABLES = {"calibration.csv", "per_class.csv", "confusion.csv", "risk_coverage.csv", "diversity.csv", "summary.json"}
FIGURES = {"calibration.png", "risk_coverage.png", "confusion.png", "diversity.png"}


def test_a_run_leaves_tables_and_numbers_that_are_no_metrics_of_the_leaderboard(tmp_path: Path) -> None:
    overrides = ["data=digits", "training.epochs=1", "base_models.count=2", "strategy=output_fusion/average"]
    record = transfuse.run(
        [*overrides, "evaluation.figures=never", "trainer.progress=false", f"paths.outputs={tmp_path}"]
    )
    (folder,) = tmp_path.glob("runs/*/*/analysis")
    assert {path.name for path in folder.iterdir()} == TABLES
    numbers = json.loads((folder / "summary.json").read_text())["digit"]
    assert not set(numbers) & {name.rpartition("/")[2] for name in record.metrics}
    assert (folder / "diversity.csv").read_text().splitlines()[1].startswith("digit,seeds-0,seeds-1,")

    tracker = MlflowTracker().at(tmp_path)
    client, _ = tracker._connect()  # type: ignore[attr-defined]
    run_id = str(record.tracking["run_id"])
    tracked = client.get_run(run_id).data.metrics
    assert {name.removeprefix("analysis/"): value for name, value in tracked.items() if "analysis" in name} == numbers
    assert {Path(item.path).name for item in client.list_artifacts(run_id, "analysis")} == TABLES


@pytest.mark.parametrize(
    ("figures", "parent", "drawn"),
    [
        ("auto", None, True),
        ("auto", lambda tracker: "sweep", False),
        ("always", lambda tracker: "sweep", True),
        ("never", None, False),
    ],
)
def test_figures_are_for_runs_of_their_own(
    figures: str, parent: Callable[[Tracker], str] | None, drawn: bool, tmp_path: Path
) -> None:
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        given = [f"evaluation.figures={figures}", f"paths.outputs={tmp_path}", "tracking=off"]
        run = read(compose("config", overrides=given), tmp_path / "run", parent=parent)
    show(run, analyse(result_of(SHAPE), [SHAPE], MEMBERS), FusedModel(network=None, validation={}), MEMBERS)
    names = {path.name for path in (tmp_path / "run" / "analysis").iterdir()}
    assert names == (TABLES | FIGURES if drawn else TABLES)
