from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from transfuse.tracking import MlflowTracker, Tracker
from transfuse.tracking.connection import connect, default_artifacts, default_uri
from transfuse.types import HyperparameterError

CONFIG = Path(__file__).parents[2] / "conf" / "tracking" / "mlflow.yaml"
PARAMS = {"strategy": {"_target_": "transfuse.Average", **{f"p{index}": index for index in range(150)}}, "seed": 3}
JOB = """
import sys
from pathlib import Path
from transfuse.tracking import MlflowTracker
tracker = MlflowTracker().at(Path(sys.argv[1]))
run = tracker.start("job", sys.argv[2], tags={}, params={"seed": 0})
tracker.metrics(run, {"test/accuracy": 0.5})
tracker.finish(run, "finished")
sys.exit(tracker.failure)
"""


@dataclass(frozen=True, kw_only=True)
class Written:
    """Runs that one tracker wrote, and a client of MLflow's own to read them back."""

    outputs: Path
    client: Any
    experiment_id: str
    sweep: str
    job: str


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    outputs = tmp_path_factory.mktemp("outputs")
    tracker = MlflowTracker().at(outputs)
    sweep = tracker.start("sweep", "demo", tags={"transfuse.data": "digits"}, params={})
    job = write_job(tracker, outputs, parent=sweep)
    tracker.finish(sweep, "failed")
    assert tracker.failure is None
    connection = connect(default_uri(outputs), str(outputs / "mlartifacts"), "transfuse", outputs)
    return Written(
        outputs=outputs, client=connection.client, experiment_id=connection.experiment_id, sweep=sweep, job=job
    )


def write_job(tracker: Tracker, folder: Path, parent: str | None) -> str:
    record, weights = folder / "record.json", folder / "model.safetensors"
    record.write_text('{"schema": 1}')
    weights.write_bytes(b"weights")
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "a.png").write_bytes(b"png")
    job = tracker.start("job", "average seed=3", tags={"transfuse.seed": "3"}, params=PARAMS, parent=parent)
    tracker.curves(job, [{"epoch": epoch, "step": 10 * epoch, "train/loss@1": 1 / (epoch + 1)} for epoch in range(4)])
    tracker.metrics(job, {"test/accuracy": 0.9, "test/nll": math.inf, "test/f1 (macro)": math.nan})
    tracker.tags(job, {"transfuse.key": "abc"})
    tracker.dataset(job, "digits", "ab" * 32, "development", {"train": 1000})
    tracker.artifacts(job, [record])
    tracker.artifacts(job, [folder / "figures"], "report")
    tracker.model(job, "output_fusion/average", weights, {"model": "mlp"})
    tracker.finish(job, "finished")
    return job


def test_config_holds_every_field_with_its_default() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    assert config.pop("_target_") == "transfuse.tracking.MlflowTracker"
    assert config.pop("uri") == "${oc.env:MLFLOW_TRACKING_URI,null}"
    assert config == {field.name: field.default for field in fields(MlflowTracker) if field.name != "uri"}


def test_experiment_needs_a_name() -> None:
    with pytest.raises(HyperparameterError, match="`experiment` should be a name"):
        MlflowTracker(experiment="")


def test_store_is_in_the_outputs_folder(written: Written) -> None:
    experiment = written.client.get_experiment(written.experiment_id)
    assert (written.outputs / "mlflow.db").is_file()
    assert experiment.name == "transfuse"
    assert experiment.artifact_location == str(written.outputs / "mlartifacts")


@pytest.mark.parametrize("uri", ["http://host:5000", "https://host"])
def test_a_server_keeps_its_own_artifact_location(uri: str, tmp_path: Path) -> None:
    assert default_artifacts(uri, tmp_path) is None
    assert default_artifacts("postgresql://host/db", tmp_path) == str(tmp_path / "mlartifacts")


def test_runs_have_names_kinds_parents_and_states(written: Written) -> None:
    sweep, job = written.client.get_run(written.sweep), written.client.get_run(written.job)
    assert job.info.run_name == "average seed=3"
    assert (sweep.info.status, job.info.status) == ("FAILED", "FINISHED")
    tags = job.data.tags
    assert tags["mlflow.parentRunId"] == written.sweep
    assert "mlflow.parentRunId" not in sweep.data.tags
    assert (sweep.data.tags["transfuse.kind"], tags["transfuse.kind"]) == ("sweep", "job")
    assert (tags["transfuse.seed"], tags["transfuse.key"], tags["transfuse.status"]) == ("3", "abc", "finished")


def test_params_are_all_there(written: Written) -> None:
    params = written.client.get_run(written.job).data.params
    expected = {"strategy._target_": "transfuse.Average", "seed": "3"}
    assert params == expected | {f"strategy.p{index}": str(index) for index in range(150)}


def test_final_metrics_keep_numbers_and_turn_infinity_into_nan(written: Written) -> None:
    metrics = written.client.get_run(written.job).data.metrics
    assert metrics["test/accuracy"] == 0.9
    assert math.isnan(metrics["test/nll"])
    assert math.isnan(metrics["test/f1 _macro_"])


def test_curves_have_the_steps_of_their_rows(written: Written) -> None:
    history = written.client.get_metric_history(written.job, "curve/train/loss_1")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (10, 1 / 2), (20, 1 / 3), (30, 1 / 4)]
    epochs = written.client.get_metric_history(written.job, "curve/epoch")
    assert [(point.step, point.value) for point in epochs] == [(0, 0), (10, 1), (20, 2), (30, 3)]


def test_curves_without_steps_count_epochs_or_rows(written: Written) -> None:
    tracker = MlflowTracker().at(written.outputs)
    run = tracker.start("base_model", "mlp", tags={}, params={})
    tracker.curves(run, [{"epoch": 5, "a": 1.0}, {"epoch": 7, "a": 2.0}])
    tracker.curves(run, [{"b": 1.0}, {"b": 2.0}])
    assert [point.step for point in written.client.get_metric_history(run, "curve/a")] == [5, 7]
    assert [point.step for point in written.client.get_metric_history(run, "curve/b")] == [0, 1]
    assert written.client.get_run(run).info.status == "RUNNING"
    tracker.finish(run, "finished")


def test_datasets_are_inputs(written: Written) -> None:
    (data,) = written.client.get_run(written.job).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", "ab" * 18)
    assert json.loads(data.dataset.source) == {"fingerprint": "ab" * 32}
    assert json.loads(data.dataset.profile) == {"train": 1000}
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "development")]


def test_artifacts_are_copied(written: Written, tmp_path: Path) -> None:
    folder = Path(written.client.download_artifacts(written.job, "", str(tmp_path)))
    assert (folder / "record.json").read_text() == '{"schema": 1}'
    assert (folder / "report" / "figures" / "a.png").read_bytes() == b"png"


def test_the_model_is_plain_files_linked_to_its_run(written: Written) -> None:
    (output,) = written.client.get_run(written.job).outputs.model_outputs
    model = written.client.get_logged_model(output.model_id)
    assert (model.name, str(model.status), model.source_run_id) == ("output_fusion-average", "READY", written.job)
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "config.json").read_text()) == {"model": "mlp"}


def test_log_model_false_publishes_no_model(written: Written) -> None:
    tracker = MlflowTracker(log_model=False).at(written.outputs)
    run = tracker.start("job", "no model", tags={}, params={})
    tracker.model(run, "fused", written.outputs / "model.safetensors", {})
    tracker.finish(run, "finished")
    assert tracker.failure is None
    assert not written.client.get_run(run).outputs.model_outputs


def test_processes_started_at_once_on_an_empty_folder_all_succeed(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path), f"job {index}"], stderr=subprocess.PIPE, text=True)
        for index in range(4)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert errors == [""] * 4
    client, experiment_id = connect(default_uri(tmp_path), str(tmp_path / "mlartifacts"), "transfuse", tmp_path)
    runs = client.search_runs([experiment_id])
    assert {run.info.run_name for run in runs} == {f"job {index}" for index in range(4)}
    assert {run.data.metrics["test/accuracy"] for run in runs} == {0.5}


@pytest.mark.parametrize("broken", ["server", "database"])
def test_a_broken_store_warns_once_and_costs_nothing(
    broken: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "file").write_text("")
    uri = {"server": "http://127.0.0.1:1", "database": f"sqlite:///{tmp_path}/file/mlflow.db"}[broken]
    tracker = MlflowTracker(uri=uri).at(tmp_path)
    with caplog.at_level(logging.WARNING, logger="transfuse"):
        assert write_job(tracker, tmp_path, parent=None) == ""
    assert tracker.failure is not None
    assert tracker.failure.startswith("start: ")
    (warning,) = (record for record in caplog.records if record.name.startswith("transfuse"))
    assert uri in warning.getMessage()
    assert "results are on disk" in warning.getMessage()


def test_an_outputs_path_that_is_a_file_is_told_the_same_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outputs").write_text("")
    tracker = MlflowTracker().at(tmp_path / "outputs")
    assert tracker.start("job", "a job", tags={}, params={}) == ""
    assert tracker.failure is not None
    assert "FileExistsError" in tracker.failure


def test_passwords_do_not_reach_the_log_or_the_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = MlflowTracker(uri="nonsense://ada:secret@host/db").at(tmp_path)
    tracker.start("job", "a job", tags={}, params={})
    assert tracker.failure is not None
    assert "secret" not in tracker.failure + caplog.text
    assert "nonsense://***@host/db" in caplog.text


def test_tracking_stops_at_the_first_failure(written: Written, caplog: pytest.LogCaptureFixture) -> None:
    tracker = MlflowTracker().at(written.outputs)
    run = tracker.start("job", "fails midway", tags={}, params={})
    tracker.artifacts(run, [written.outputs / "missing.json"])
    assert tracker.failure is not None
    assert tracker.failure.startswith("artifacts: FileNotFoundError")
    tracker.metrics(run, {"test/accuracy": 1.0})
    assert written.client.get_run(run).data.metrics == {}
    assert len([record for record in caplog.records if record.name.startswith("transfuse")]) == 1


def test_calls_for_a_run_without_id_do_nothing(written: Written) -> None:
    tracker = MlflowTracker().at(written.outputs)
    tracker.metrics("", {"test/accuracy": 1.0})
    tracker.finish("", "finished")
    assert tracker.failure is None
