"""What an experiment may tell a tracker. Results live on disk; a tracker only shows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

RunKind = Literal["sweep", "job", "base_model"]


class Tracker(ABC):
    """Runs in a tracking store.

    No method that writes raises: what cannot be tracked is told once, in the log and in `failure`.

    Runs are named by the id that `start` returns. It is empty when there is no store; all methods take that id too.
    """

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why tracking stopped, or None while it works."""

    @abstractmethod
    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: str | None = None,
    ) -> str:
        """Opens a run and returns its id.

        Args:
            kind: becomes the tag `transfuse.kind`.
            name: shown in the table of runs.
            tags: by their full names, such as `transfuse.strategy`.
            params: the plain nested config; nested keys are joined by dots.
            parent: id of the run that this one belongs to.
        """

    @abstractmethod
    def curves(self, run_id: str, /, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds a training history as `curve/<name>`; a row's `step`, else its `epoch`, else its position is the x."""

    @abstractmethod
    def metrics(self, run_id: str, /, values: Mapping[str, float]) -> None:
        """Sets final values. NaN stays NaN; infinities become NaN, since they would flatten every chart."""

    @abstractmethod
    def tags(self, run_id: str, /, values: Mapping[str, str]) -> None:
        """Sets tags by their full names."""

    @abstractmethod
    def dataset(self, run_id: str, /, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Names data that the run used.

        Args:
            run_id: of the run.
            name: of the data set.
            digest: its fingerprint; the first 36 characters are shown, all of it is kept in the source.
            context: what for, such as `development` or `test`.
            profile: numbers about it, such as the number of examples.
        """

    @abstractmethod
    def artifacts(self, run_id: str, /, files: Sequence[Path], folder: str | None = None) -> None:
        """Copies files (or whole folders) into the run's artifacts, below `folder`."""

    @abstractmethod
    def model(self, run_id: str, /, name: str, weights: Path, config: Mapping[str, Any]) -> None:
        """Publishes a network as a logged model of the run: its safetensors file and `config.json`, no pickle."""

    @abstractmethod
    def fetch(self, uri: str, folder: Path) -> tuple[str, Path]:
        """Copies a published network's files into an empty folder, and creates nothing in the store.

        Args:
            uri: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/<path>`.
            folder: where to.

        Returns:
            The URI with an alias resolved, and the file or folder.

        Raises:
            DataError: there is no such store, model, run or artifact.
        """

    @abstractmethod
    def finish(self, run_id: str, /, status: Literal["finished", "failed"]) -> None:
        """Closes the run and sets the tag `transfuse.status`."""
