"""Opening the tracking store: once a process, and created once whatever the number of processes."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from filelock import FileLock

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")
_SERVERS = ("http:", "https:", "databricks")
_LOCK = ".mlflow.lock"
_LOCK_SECONDS = 120
_BUSY_SECONDS = 30
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A dead server costs seconds, not the minutes of MLflow's own defaults (7 retries of 120 s).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Connection(NamedTuple):
    """An open store and the experiment that runs go to."""

    client: MlflowClient
    experiment_id: str


def default_uri(outputs: Path) -> str:
    """The SQLite database of an outputs folder; a writer waits for others instead of failing after 5 s."""
    return f"sqlite:///{outputs / DATABASE}?timeout={_BUSY_SECONDS}"


def default_artifacts(uri: str, outputs: Path) -> str | None:
    """Where artifacts go: beside the database; to the server's own place where the store is a server."""
    return None if uri.startswith(_SERVERS) else str(outputs / ARTIFACTS)


@cache
def connect(uri: str, artifacts: str | None, experiment: str, outputs: Path) -> Connection:
    """Opens the store, and creates database and experiment where they are missing.

    MLflow's migrations of an empty database do not survive a second process that starts them too, so the whole opening
    is under a file lock. It is done once a process: clients and database engines are reused by all later runs.

    Args:
        uri: of the store.
        artifacts: artifact location of a new experiment; None leaves it to the server.
        experiment: its name.
        outputs: an absolute folder, where the lock lies.
    """
    _prepare()
    outputs.mkdir(parents=True, exist_ok=True)
    with FileLock(outputs / _LOCK, timeout=_LOCK_SECONDS):
        if uri.startswith(_DATABASES):
            _probe(uri)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        return Connection(client, _experiment(client, experiment, artifacts))


def connect_to_read(uri: str) -> MlflowClient:
    """A client of a store that is there already; unlike `connect`, it creates nothing."""
    _prepare()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _prepare() -> None:
    """Sets what MLflow reads from the environment when it is imported; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a dead server is told once, by us


def _probe(uri: str) -> None:
    """Connects to a database once: MLflow itself would try for 100 s before it says that it cannot."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    from transfuse.tracking.view import publish

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        experiment_id = str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException:
        # Another machine, which our lock does not reach, has just created it on the same server.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)
    publish(client, experiment_id)
    return experiment_id
