"""`tracking=off`: results are on disk only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transfuse.tracking.base import RunKind, Tracker
from transfuse.types import DataError


@dataclass(frozen=True, kw_only=True)
class Off(Tracker):
    """A tracker that does nothing."""

    def at(self, outputs: Path) -> Tracker:
        """Itself, whatever the folder."""
        return self

    @property
    def failure(self) -> str | None:
        """None: nothing was asked for."""
        return None

    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        parent: str | None = None,
    ) -> str:
        """The empty id."""
        return ""

    def curves(self, run_id: str, /, rows: Sequence[Mapping[str, float]]) -> None:
        """Nothing."""

    def metrics(self, run_id: str, /, values: Mapping[str, float]) -> None:
        """Nothing."""

    def tags(self, run_id: str, /, values: Mapping[str, str]) -> None:
        """Nothing."""

    def dataset(self, run_id: str, /, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Nothing."""

    def artifacts(self, run_id: str, /, files: Sequence[Path], folder: str | None = None) -> None:
        """Nothing."""

    def model(self, run_id: str, /, name: str, weights: Path, config: Mapping[str, Any]) -> None:
        """Nothing."""

    def fetch(self, uri: str, folder: Path) -> tuple[str, Path]:
        """There is no store to read from."""
        raise DataError(f"{uri} cannot be read without a tracking store. Did you mean tracking=mlflow?")

    def finish(self, run_id: str, /, status: Literal["finished", "failed"]) -> None:
        """Nothing."""
