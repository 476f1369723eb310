from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from transfuse.tracking import MlflowTracker
from transfuse.tracking.connection import connect, default_uri
from transfuse.tracking.view import TAG, publish, shown_metrics, url, view

METRICS = {"test/accuracy": 0.9, "test/nll": 0.3, "validation/nll": 0.2, "cost/latency_ms": 0.1}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """An experiment with one sweep of one job, whose view was published before and after the job."""
    outputs = tmp_path_factory.mktemp("outputs")
    tracker = MlflowTracker().at(outputs)
    sweep = tracker.start("sweep", "demo", tags={}, params={})
    job = tracker.start("job", "average", tags={"transfuse.strategy": "average"}, params={}, parent=sweep)
    tracker.metrics(job, METRICS)
    tracker.metrics(sweep, {"test/rmse": 1.0})
    assert tracker.failure is None
    connection = connect(default_uri(outputs), str(outputs / "mlartifacts"), "transfuse", outputs)
    return connection.client, connection.experiment_id


def state_of(tag: str) -> dict[str, Any]:
    content = json.loads(tag)
    assert set(content) == {"name", "createdAt", "updatedAt", "state"}
    state: dict[str, Any] = json.loads(content["state"])
    return state


def test_a_new_experiment_has_a_view_of_usual_metrics(experiment: tuple[Any, str]) -> None:
    client, experiment_id = experiment
    tags = client.get_experiment(experiment_id).tags
    assert "metrics.`test/accuracy`" in state_of(tags[TAG])["selectedColumns"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert url("", experiment_id) in tags["mlflow.note.content"]


def test_the_published_view_names_the_metrics_that_jobs_have(experiment: tuple[Any, str]) -> None:
    client, experiment_id = experiment
    publish(client, experiment_id)
    state = state_of(client.get_experiment(experiment_id).tags[TAG])
    charts = [chart["metricKey"] for chart in state["compareRunCharts"]]
    assert charts == ["test/accuracy", "test/nll", "cost/latency_ms"]
    assert [column for column in state["selectedColumns"] if column.startswith("metrics.")] == [
        f"metrics.`{name}`" for name in charts
    ]
    found = client.search_runs([experiment_id], state["searchFilter"], order_by=[state["orderByKey"] + " DESC"])
    assert [run.info.run_name for run in found] == ["average"]


def test_charts_lie_in_sections_of_the_view() -> None:
    state = state_of(view(["test/rmse", "cost/latency_ms"]))
    sections = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    assert list(sections.values()) == ["test", "cost"]
    places = {chart["metricKey"]: sections[chart["metricSectionId"]] for chart in state["compareRunCharts"]}
    assert places == {"test/rmse": "test", "cost/latency_ms": "cost"}


@pytest.mark.parametrize(("metric", "ascending"), [("test/accuracy", False), ("test/rmse", True), ("test/a/nll", True)])
def test_the_best_run_is_on_top(metric: str, ascending: bool) -> None:
    state = state_of(view([metric]))
    assert (state["orderByKey"], state["orderByAsc"]) == (f"metrics.`{metric}`", ascending)


def test_overall_scores_come_before_those_of_tasks_and_few_are_shown() -> None:
    of_tasks = {f"test/task{index}/{score}" for index in range(20) for score in ("accuracy", "nll")}
    shown = shown_metrics(of_tasks | {"test/mean_rank", "test/custom", "validation/nll", "cost/base_seconds"})
    assert shown[:3] == ["test/mean_rank", "test/custom", "test/task0/accuracy"]
    assert shown[-1] == "cost/base_seconds"
    assert len(shown) == 13
    assert "validation/nll" not in shown


def test_a_full_view_fits_into_a_tag() -> None:
    longest = [f"test/{'t' * 60}{index}/average_precision" for index in range(12)]
    assert len(view(longest)) < 20_000


def test_the_address_opens_the_view() -> None:
    parts = urllib.parse.urlsplit(url("http://127.0.0.1:5000/", "7"))
    page, _, query = parts.fragment.partition("?")
    assert page == "/experiments/7/runs"
    assert f"mlflow.sharedViewState.{urllib.parse.parse_qs(query)['viewStateShareKey'][0]}" == TAG
    assert Path(parts.path) == Path("/")
