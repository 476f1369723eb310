"""The view of an experiment in MLflow's pages: which columns and charts a reader finds when the page opens.

MLflow shows no metric in its table of runs unless it is asked to. What to show is kept in a tag of the experiment, in
the format that MLflow's own "share view" writes. That format is not documented, so it is known in this module alone;
where MLflow does not understand it, its page opens without a view.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "transfuse"
TAG = f"mlflow.sharedViewState.{KEY}"
JOBS = "tags.`transfuse.kind` = 'job'"
_STRATEGY = "tags.`transfuse.strategy`"
_DETAILS = ("tags.`transfuse.data`", "tags.`transfuse.seed`")
_COSTS = ("cost/base_seconds", "cost/latency_ms")
_DEFAULT = ("test/accuracy", "test/nll", *_COSTS)
_SCORES = (
    *("accuracy", "nll", "auroc", "f1_macro", "ece", "brier"),
    *("rmse", "mae", "r2"),
    *("average_precision", "f1_micro", "hamming_loss"),
    *("delta_m", "mean_rank"),
)
_LOWER_IS_BETTER = frozenset({"nll", "brier", "ece", "rmse", "mae", "hamming_loss", "mean_rank"})
_MAX_SCORES = 12
_READ_RUNS = 200
_CREATED = 1_700_000_000_000  # any fixed time: equal views are equal tags

_NOTE = """\
### transfuse: which way of combining these models is best?

* Compare the runs **[as a table]({table})** or **[as charts]({charts})**: scores on test data and costs of all jobs, \
the best on top.
* `test/...` was read once, after everything was selected on `validation/...`; `fit/...` are in-sample scores of what \
was fitted on validation data; `curve/...` are training curves; `cost/base_seconds` is the training time of the base \
models and `cost/latency_ms` the time of one prediction.
* One parent run a sweep, one child a job; base models have runs of their own (`tags.transfuse.kind = 'base_model'`). \
Intervals and paired tests are in the sweep's report: `make report`.
"""


def publish(client: MlflowClient, experiment_id: str) -> None:
    """Writes the view into the experiment's tags, with the metrics that its latest jobs have."""
    runs = client.search_runs([experiment_id], filter_string=JOBS, max_results=_READ_RUNS)
    metrics = shown_metrics({name for run in runs for name in run.data.metrics})
    note = _NOTE.format(table=url("", experiment_id), charts=url("", experiment_id, mode="CHART"))
    client.set_experiment_tag(experiment_id, TAG, view(metrics))
    client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    client.set_experiment_tag(experiment_id, "mlflow.note.content", note)


def url(base: str, experiment_id: str, mode: Literal["TABLE", "CHART"] = "TABLE") -> str:
    """The address of the view below a server's `http://127.0.0.1:5000/`; relative where `base` is empty."""
    query = f"workflowType=machine_learning&viewStateShareKey={KEY}&compareRunsMode={mode}"
    return f"{base}#/experiments/{experiment_id}/runs?{query}"


def shown_metrics(found: Iterable[str]) -> list[str]:
    """The test scores and costs to show of those found, the most telling first; usual ones where none is found."""
    found = set(found)
    scores = sorted((name for name in found if name.startswith("test/")), key=_rank)
    costs = [name for name in _COSTS if name in found]
    return [*scores[:_MAX_SCORES], *costs] if scores else list(_DEFAULT)


def _rank(metric: str) -> tuple[bool, int, str]:
    _, *tasks, score = metric.split("/")
    return (bool(tasks), _SCORES.index(score) if score in _SCORES else len(_SCORES), metric)


def view(metrics: Sequence[str]) -> str:
    """The value of the tag: jobs, the best by the first metric on top, with columns and bar charts of all metrics."""
    columns = [_STRATEGY, *(f"metrics.`{name}`" for name in metrics), *_DETAILS]
    sections = sorted({name.partition("/")[0] for name in metrics}, reverse=True)
    state: dict[str, Any] = {
        "searchFilter": JOBS,
        # Ordered by time, MLflow hides children behind their parent.
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": metrics[0].rpartition("/")[2] in _LOWER_IS_BETTER,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {_STRATEGY: 200},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [_bar_chart(name) for name in metrics],
        "compareRunSections": [_section(name) for name in sections],
        "isAccordionReordered": True,
    }
    content = {"name": KEY, "createdAt": _CREATED, "updatedAt": _CREATED, "state": json.dumps(state)}
    return json.dumps(content)


def _bar_chart(metric: str) -> dict[str, Any]:
    section, _, name = metric.partition("/")
    return {
        "type": "BAR",
        "uuid": f"chart-{metric}",
        "metricSectionId": f"section-{section}",
        "metricKey": metric,
        "displayName": name,
        "runsCountToCompare": 20,
        "isGenerated": True,
        "deleted": False,
    }


def _section(name: str) -> dict[str, Any]:
    return {"uuid": f"section-{name}", "name": name, "display": True, "isReordered": True, "deleted": False}
