"""The test predictions that a job stored.

Dimensions: M members, N examples, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

_FILE = "predictions.safetensors"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a job predicted for one task.

    Attributes:
        ids_N: (N,) of the test examples.
        labels: (N,) class indices, or (N, C) labels or values.
        outputs_MNC: (M, N, C) logits or values; M is 1 but for reports about members.
    """

    ids_N: Tensor
    labels: Tensor
    outputs_MNC: Tensor


def read_outputs(folder: Path, task: str) -> Outputs | None:
    """The predictions of the job in `folder` for `task`; None where they are missing or damaged."""
    found = _read(folder, "ids", f"{task}/labels", f"{task}/outputs")
    if found is None:
        return None
    ids_N, labels, outputs = found
    return Outputs(ids_N=ids_N, labels=labels, outputs_MNC=outputs if outputs.ndim == 3 else outputs[None])


def read_ids(folder: Path) -> Tensor | None:
    """(N,) ids of the test examples of the job in `folder`; None where they are unknown."""
    found = _read(folder, "ids")
    return None if found is None else found[0]


def _read(folder: Path, *names: str) -> list[Tensor] | None:
    try:
        with safe_open(folder / _FILE, framework="pt") as file:
            return [file.get_tensor(name) for name in names]
    except (OSError, SafetensorError):
        return None
