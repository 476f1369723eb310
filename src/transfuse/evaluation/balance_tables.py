"""What a multi-task training noted epoch by epoch, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transfuse.evaluation.tables import write_table

History = Sequence[Mapping[str, float]]


def write_balance_table(folder: Path, history: History) -> None:
    """Writes `balance.csv`, a row an epoch: each task's loss, weight and gradient norm, cosines, conflicts, step times.

    Args:
        folder: of the run's analysis; it exists.
        history: of the fused network's training; nothing is written where it notes no tasks' gradients or weights.
    """
    if not balanced(history):
        return
    columns = list(dict.fromkeys(name for row in history for name in row))
    write_table(folder / "balance.csv", columns, [tuple(row.get(name, "") for name in columns) for row in history])


def balanced(history: History) -> bool:
    """Whether the training noted how tasks were balanced."""
    return any(name.startswith("balance/") for row in history for name in row)
