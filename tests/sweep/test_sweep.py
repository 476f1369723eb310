"""Sweeps as a user starts them, with MLflow on SQLite."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

QUICK = ("training.epochs=2", "trainer.progress=false")


def sweep(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from transfuse.cli import main; sys.argv[0] = 'transfuse'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "-m", *arguments, *QUICK],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def runs(outputs: Path, kind: str) -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{outputs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("transfuse")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`transfuse.kind` = '{kind}'", max_results=1000))


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs at a time on an empty store and an empty database: 3 strategies x 2 members x 2 seeds."""
    folder = tmp_path_factory.mktemp("parallel")
    done = sweep(
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "base_models=seeds",
        "base_models.count=2",
        "strategy=baseline/best_single,output_fusion/average,weight_fusion/uniform_soup",
        "seed=0,1",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


def test_each_base_model_is_trained_once_however_many_jobs_need_it(parallel: Path) -> None:
    trained = runs(parallel, "base_model")
    assert len(trained) == 4
    assert len({run.data.tags["transfuse.key"] for run in trained}) == 4
    assert len([path for path in (parallel / "store").iterdir() if (path / "record.json").exists()]) == 4


def test_jobs_are_children_of_one_sweep(parallel: Path) -> None:
    (parent,) = runs(parallel, "sweep")
    children = runs(parallel, "job")
    assert len(children) == 6
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for run in children:
        tags, metrics = run.data.tags, run.data.metrics
        assert tags["transfuse.status"] == "finished" and tags["transfuse.data"] == "digits"
        assert tags["transfuse.model"] == "mlp" and tags["transfuse.seed"] in ("0", "1")
        assert tags["transfuse.strategy"].startswith(tags["transfuse.family"] + "/")
        assert {"test/accuracy", "test/nll", "validation/nll", "cost/base_seconds", "cost/latency_ms"} <= set(metrics)
        assert run.data.params["base_models.count"] == "2"
        assert {item.dataset.name for item in run.inputs.dataset_inputs} == {"digits"}
    assert Counter(run.data.tags["transfuse.seed"] for run in children) == {"0": 3, "1": 3}


def test_base_models_have_curves_and_are_linked_to_the_job_that_trained_them(parallel: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{parallel / 'mlflow.db'}")
    jobs = {run.info.run_id for run in runs(parallel, "job")}
    for run in runs(parallel, "base_model"):
        assert run.data.tags["transfuse.trained_by"] in jobs
        curve = next(name for name in run.data.metrics if name.endswith("validation/loss"))
        assert len(client.get_metric_history(run.info.run_id, curve)) == 2


def test_the_sweep_ends_in_a_leaderboard_on_disk_and_on_the_parent_run(parallel: Path) -> None:
    (folder,) = (parallel / "sweeps").glob("*/*")
    with (folder / "report" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == {
        "baseline/best_single",
        "output_fusion/average",
        "weight_fusion/uniform_soup",
    }
    assert {row["seeds"] for row in rows} == {"2"}
    (parent,) = runs(parallel, "sweep")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["base_models/trained"] == 4
    client = MlflowClient(tracking_uri=f"sqlite:///{parallel / 'mlflow.db'}")
    files = {item.path for item in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/leaderboard.csv", "report/leaderboard.md", "report/report.html"} <= files
    figures = {Path(item.path).name for item in client.list_artifacts(parent.info.run_id, "report/figures")}
    assert figures == {path.name for path in (folder / "report" / "figures").iterdir()}
    assert {"scores.png", "differences.png", "latency.png", "seconds.png", "reliability.png"} == figures


def test_a_failed_job_costs_no_other_job_its_result(tmp_path: Path) -> None:
    done = sweep(
        "base_models=seeds",
        "base_models.count=2",
        "strategy=output_fusion/average,multi_task/joint_sum,baseline/best_single",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    records = [json.loads((folder / str(job) / "record.json").read_text()) for job in range(3)]
    assert [record["status"] for record in records] == ["finished", "failed", "finished"]
    assert records[1]["error"].startswith("IncompatibleStrategyError: multi_task/joint_sum is for multi_task problems")
    assert "multi_task/joint_sum" in done.stdout and "is for multi_task problems" in done.stdout.replace("\n", " ")
    assert "2 trained, 0 reused" in done.stdout
    again = sweep("base_models=seeds", "base_models.count=2", "strategy=output_fusion/average", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 trained, 2 reused" in again.stdout


def test_delta_m_is_written_back_when_the_sweep_ends(tmp_path: Path) -> None:
    done = sweep("data=digits_tasks", "strategy=baseline/single_task,multi_task/joint_sum", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    by_strategy = {run.data.tags["transfuse.strategy"]: run for run in runs(tmp_path / "outputs", "job")}
    assert by_strategy["baseline/single_task"].data.metrics["test/delta_m"] == 0.0
    shared = by_strategy["multi_task/joint_sum"].data.metrics
    single = by_strategy["baseline/single_task"].data.metrics
    gains = [
        (shared["test/digit/accuracy"] - single["test/digit/accuracy"]) / single["test/digit/accuracy"],
        (shared["test/parity/accuracy"] - single["test/parity/accuracy"]) / single["test/parity/accuracy"],
        (single["test/value/rmse"] - shared["test/value/rmse"]) / single["test/value/rmse"],
    ]
    assert shared["test/delta_m"] == pytest.approx(100 * sum(gains) / 3, rel=1e-6)
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    assert json.loads((folder / "1" / "record.json").read_text())["metrics"]["test/delta_m"] == pytest.approx(
        shared["test/delta_m"]
    )
