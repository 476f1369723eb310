"""`tracking=mlflow`: runs, curves, scores, data sets and models in MLflow. The only way from transfuse to MLflow."""

from __future__ import annotations

import getpass
import json
import logging
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from transfuse.tracking.base import RunKind, Tracker
from transfuse.tracking.connection import Connection, connect, default_artifacts, default_uri
from transfuse.tracking.entries import (
    DIGEST_LENGTH,
    batches,
    entry_name,
    finite_or_nan,
    flat_params,
    flat_tags,
    model_name,
)
from transfuse.tracking.published import fetch
from transfuse.types import HyperparameterError

_log = logging.getLogger(__name__)
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """Where runs are tracked.

    Attributes:
        experiment: name of the MLflow experiment.
        uri: tracking store (`sqlite:///...`, `postgresql://...`, `http://...`); None: `mlflow.db` in the outputs
            folder.
        artifacts: artifact location of a new experiment; None: `mlartifacts` in the outputs folder, or the server's own
            place where `uri` is a server.
        log_model: whether fused networks and newly trained base models are copied into MLflow as logged models.
    """

    experiment: str = "transfuse"
    uri: str | None = None
    artifacts: str | None = None
    log_model: bool = True

    def __post_init__(self) -> None:
        if not self.experiment:
            raise HyperparameterError("`experiment` should be a name. Found `experiment = ''`.")

    def at(self, outputs: Path) -> Tracker:
        """The tracker for an absolute outputs folder. It connects when the first run starts."""
        uri = self.uri or default_uri(outputs)
        return MlflowRuns(
            uri=uri,
            artifacts=self.artifacts or default_artifacts(uri, outputs),
            experiment=self.experiment,
            log_model=self.log_model,
            outputs=outputs,
        )


def _safely(
    method: Callable[Concatenate[MlflowRuns, str, _P], _T],
) -> Callable[Concatenate[MlflowRuns, str, _P], _T | None]:
    """Makes a method tell its failure instead of raising it, and do nothing after a failure or for a run without id."""

    @wraps(method)
    def safe(self: MlflowRuns, run: str, /, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        if self.failure is not None or not run:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own calls of SQLAlchemy
                return method(self, run, *args, **kwargs)
        except Exception as error:  # whatever MLflow, its database or its server do, the results must survive
            self.fail(method.__name__.strip("_"), error)
            return None

    return safe


class MlflowRuns(Tracker):
    """Runs of one experiment in one tracking store.

    Args:
        uri: of the store.
        artifacts: artifact location of a new experiment, or None.
        experiment: its name.
        log_model: whether `model` does anything.
        outputs: absolute folder for the lock under which a new store is created.
    """

    def __init__(self, *, uri: str, artifacts: str | None, experiment: str, log_model: bool, outputs: Path) -> None:
        self._uri = uri
        self._artifacts = artifacts
        self._experiment = experiment
        self._log_model = log_model
        self._outputs = outputs
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why tracking stopped, or None while it works."""
        return self._failure

    def fail(self, action: str, error: Exception) -> None:
        """Stops tracking and says why, once."""
        reason = (str(error).strip().splitlines() or [""])[0]
        self._failure = _without_password(f"{action}: {type(error).__name__}: {reason}")
        _log.warning(
            "MLflow at %s failed (%s). Tracking stops here; results are on disk, in the run folder.",
            _without_password(self._uri),
            self._failure,
        )

    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: str | None = None,
    ) -> str:
        """Opens a run: see `Tracker.start`."""
        labels = {
            "mlflow.user": _user(),
            "mlflow.source.name": "transfuse",
            "mlflow.source.type": "LOCAL",
            **tags,
            "transfuse.kind": kind,
        }
        if parent:
            labels["mlflow.parentRunId"] = parent
        return self._start(name or kind, flat_tags(labels), flat_params(params)) or ""

    @_safely
    def _start(self, name: str, tags: dict[str, str], params: dict[str, str]) -> str:
        client, experiment_id = self._connect()
        from mlflow.entities import Param

        run_id = str(client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
        for batch in batches([Param(*item) for item in params.items()], _MAX_PARAMS):
            client.log_batch(run_id, params=batch)
        return run_id

    @_safely
    def curves(self, run_id: str, /, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds a training history: see `Tracker.curves`."""
        points: list[tuple[str, float, int]] = []
        for position, row in enumerate(rows):
            step = int(row.get("step", row.get("epoch", position)))
            points += [(f"curve/{name}", value, step) for name, value in row.items() if name != "step"]
        self._log_points(run_id, points)

    @_safely
    def metrics(self, run_id: str, /, values: Mapping[str, float]) -> None:
        """Sets final values: see `Tracker.metrics`."""
        self._log_points(run_id, [(name, value, 0) for name, value in values.items()])

    def _log_points(self, run_id: str, /, points: Sequence[tuple[str, float, int]]) -> None:
        client = self._connect().client
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(entry_name(name), finite_or_nan(value), now, step) for name, value, step in points]
        for batch in batches(entries, _MAX_METRICS):
            client.log_batch(run_id, metrics=batch)

    @_safely
    def tags(self, run_id: str, /, values: Mapping[str, str]) -> None:
        """Sets tags."""
        client = self._connect().client
        from mlflow.entities import RunTag

        for batch in batches([RunTag(*item) for item in flat_tags(values).items()], _MAX_PARAMS):
            client.log_batch(run_id, tags=batch)

    @_safely
    def dataset(self, run_id: str, /, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Names data that the run used: see `Tracker.dataset`."""
        client = self._connect().client
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=name,
            digest=digest[:DIGEST_LENGTH],
            source_type="transfuse",
            source=json.dumps({"fingerprint": digest}),
            profile=json.dumps(dict(profile)),
        )
        tags = [InputTag("mlflow.data.context", context)]
        client.log_inputs(run_id, datasets=[DatasetInput(data, tags)])

    @_safely
    def artifacts(self, run_id: str, /, files: Sequence[Path], folder: str | None = None) -> None:
        """Copies files into the run's artifacts."""
        for file in files:
            self._connect().client.log_artifact(run_id, str(file), folder)

    @_safely
    def model(self, run_id: str, /, name: str, weights: Path, config: Mapping[str, Any]) -> None:
        """Publishes a network as a logged model of the run: see `Tracker.model`."""
        if not self._log_model:
            return
        client, experiment_id = self._connect()
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        logged = client.create_logged_model(experiment_id, model_name(name), run_id, model_type="transfuse")
        with tempfile.TemporaryDirectory() as folder:
            description = Path(folder, "config.json")
            description.write_text(json.dumps(dict(config), indent=2) + "\n")
            client.log_model_artifact(logged.model_id, str(description))
        client.log_model_artifact(logged.model_id, str(weights))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])

    def fetch(self, uri: str, folder: Path) -> tuple[str, Path]:
        """Copies a published network's files: see `Tracker.fetch`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own calls of SQLAlchemy
            return fetch(self._uri, uri, folder)

    @_safely
    def finish(self, run_id: str, /, status: Literal["finished", "failed"]) -> None:
        """Closes the run: see `Tracker.finish`."""
        client = self._connect().client
        client.set_tag(run_id, "transfuse.status", status)
        client.set_terminated(run_id, status.upper())

    def _connect(self) -> Connection:
        """The open store; to be called before anything of MLflow is imported, which it prepares."""
        return connect(self._uri, self._artifacts, self._experiment, self._outputs)


def _without_password(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user id has no name
        return "unknown"
