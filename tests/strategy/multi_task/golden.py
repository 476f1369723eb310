"""Reference values of torchjd and LibMTL for the multi-task methods."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[2] / "golden" / "multi_task"


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    """Every array by its key, float64."""
    with np.load(FOLDER / "golden.npz", allow_pickle=False) as file:
        return dict(file)


@functools.cache
def index() -> dict[str, Any]:
    """What each array is, and the small numbers."""
    return json.loads((FOLDER / "index.json").read_text())


def records(rule: str) -> list[dict[str, Any]]:
    """The `gradient_rules` of one method."""
    return [record for record in index()["gradient_rules"] if record["rule"] == rule]


def sequences(rule: str) -> list[dict[str, Any]]:
    """The `sequences` of one method: several calls from fresh state."""
    return [record for record in index()["sequences"] if record["rule"] == rule]


def weightings(name: str) -> list[dict[str, Any]]:
    """The `loss_weightings` of one method."""
    return [record for record in index()["loss_weightings"] if record["weighting"] == name]


def label(record: dict[str, Any]) -> str:
    """A test's name."""
    return f"{record.get('tasks', '')}-{record.get('kind', '')}-{record['parameters']}"
