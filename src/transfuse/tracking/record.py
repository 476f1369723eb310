"""`record.json`: all that is known of one run, and the source of every report."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transfuse.types import DataError

SCHEMA = 1
_PACKAGES = ("transfuse", "torch", "pytorch-lightning", "hydra-core", "omegaconf", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run: what was asked for, what came out, what it took.

    Attributes:
        status: `finished` or `failed`.
        error: why it failed, as `<ErrorClass>: <message>`; None otherwise.
        config: the resolved config as plain values.
        problem: `kind`, `tasks` (name and kind of each), `selection_metric`.
        metrics: `<split>/<metric>`, with several tasks `<split>/<task>/<metric>`, to value.
        cost: `base_seconds, fuse_seconds, parameters, flops_per_example, latency_ms, peak_memory_mb` to value.
        base_models: one mapping a member used: `key, name, validation, trained_here`.
        fused: `weights` and `diagnostics`.
        budget: `epochs, steps, trials, validation_looks` that the run was allowed and took.
        fingerprints: SHA-256 of the data: `development`, `test`.
        tracking: `run_id` of the run in MLflow, and `failure` where tracking stopped.
        started: UTC time in ISO 8601.
        seconds: wall clock of the whole run.
    """

    schema: int = SCHEMA
    status: str = "finished"
    error: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    family: str = ""
    strategy: str = ""
    data: str = ""
    model: str = ""
    problem: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    base_models: tuple[Mapping[str, Any], ...] = ()
    fused: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    tracking: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """Writes `record.json` into `folder`, whole or not at all."""
        text = json.dumps(_plain(asdict(self)), indent=2, allow_nan=False)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".record-")
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
        Path(temporary).replace(folder / "record.json")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Reads `record.json` from `folder`; raises `DataError` when it is not one of ours."""
        path = folder / "record.json"
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a record: {error}.") from error
        if content.get("schema") != SCHEMA:
            raise DataError(f"{path} has schema {content.get('schema')}. This version reads schema {SCHEMA}.")
        names = {field.name for field in fields(cls)}
        content = {key: value for key, value in content.items() if key in names}
        content["base_models"] = tuple(content.get("base_models", ()))
        return cls(**content)


def versions() -> dict[str, str]:
    """Installed versions of the packages that a result depends on."""
    return dict(_versions())


@cache  # reading them takes milliseconds, which each job of a sweep would pay
def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    """JSON without NaN: a number that is not finite is null, which every JSON reader takes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
