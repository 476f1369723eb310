"""Reference values of torchjd and LibMTL for the multi-task methods."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import transfuse

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


def fields(record: dict[str, Any]) -> dict[str, Any]:
    """The record's parameters by our names; `norm_eps` is the peers' own."""
    given = {name: value for name, value in record["parameters"].items() if value is not None and name != "norm_eps"}
    if "scale" in given:
        given["scale_mode"] = given.pop("scale")
    return given


def assert_golden(record: dict[str, Any], rtol: float) -> None:
    """The direction is the record's, within `rtol` of its length."""
    found = transfuse.balance(
        arrays()[record["jacobian"]],
        method=record["rule"],
        scale="published",
        orders=record.get("orders"),
        **fields(record),
    )
    expected_P = arrays()[record["direction"]]
    assert np.linalg.norm(found.direction_P.numpy() - expected_P) <= rtol * np.linalg.norm(expected_P)


def conflicting(tasks: int, *, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Random gradients (T, 40), norms from 1 to `spread`."""
    generator = torch.Generator().manual_seed(seed)
    gradients_TP = torch.randn(tasks, 40, generator=generator, dtype=torch.float64)
    return gradients_TP * torch.logspace(0, np.log10(spread), tasks, dtype=torch.float64)[:, None]
