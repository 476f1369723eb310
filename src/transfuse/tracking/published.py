"""Networks that were published in a tracking store: from a URI to files. Reads only, creates nothing there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from transfuse.tracking.connection import connect_to_read
from transfuse.types import DataError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


class Published(NamedTuple):
    """What a URI stands for.

    Attributes:
        name: with its version instead of an alias, such as `models:/digits/3`.
        location: where its files lie, as MLflow's artifact stores know it.
    """

    name: str
    location: str


def fetch(store: str, uri: str, folder: Path) -> tuple[str, Path]:
    """Copies what `uri` names into `folder`.

    Args:
        store: URI of the tracking store, whose model registry is read too.
        uri: `models:/...` or `runs:/...`.
        folder: exists, and is empty.

    Returns:
        The URI with an alias resolved, and the file or folder.

    Raises:
        DataError: there is no such store, model, run or artifact, or it cannot be read.
    """
    database = Path(store.removeprefix(_SQLITE).partition("?")[0])
    if store.startswith(_SQLITE) and not database.is_file():
        raise DataError(f"{uri} cannot be read: there is no MLflow database {database}. Is tracking.uri right?")
    try:
        client = connect_to_read(store)
        published = _resolved(client, uri)
        from mlflow.artifacts import download_artifacts

        place = download_artifacts(artifact_uri=published.location, dst_path=str(folder), tracking_uri=store)
    except Exception as error:  # of MLflow, its database, its server, or where artifacts lie
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise DataError(f"{uri} cannot be read from the tracking store: {lines[-1].rstrip('.')}.") from error
    return published.name, Path(place)


def _resolved(client: MlflowClient, uri: str) -> Published:
    scheme, _, path = uri.partition(":/")
    if scheme == "runs":
        return _of_run(client, uri, path)
    name, has_alias, alias = path.partition("@")
    if has_alias:
        version = client.get_model_version_by_alias(name, alias)
        return _of_version(client, name, str(version.version))
    name, has_version, number = path.rpartition("/")
    if has_version:
        return _of_version(client, name, number)
    return Published(uri, str(client.get_logged_model(path).artifact_location))


def _of_version(client: MlflowClient, name: str, version: str) -> Published:
    """A registered version: its source is a place, or another URI."""
    client.get_model_version(name, version)
    source = str(client.get_model_version_download_uri(name, version))
    if source.startswith(("runs:/", "models:/")):
        source = _resolved(client, source).location
    return Published(f"models:/{name}/{version}", source)


def _of_run(client: MlflowClient, uri: str, path: str) -> Published:
    """An artifact of a run, or a file of one of its logged models, which share the run's name space."""
    run_id, _, artifact = path.partition("/")
    run = client.get_run(run_id)
    first, _, rest = artifact.partition("/")
    for output in run.outputs.model_outputs if run.outputs else ():
        model = client.get_logged_model(output.model_id)
        if model.name == first:
            return Published(uri, f"{model.artifact_location}/{rest}".rstrip("/"))
    return Published(uri, f"{run.info.artifact_uri}/{artifact}".rstrip("/"))
