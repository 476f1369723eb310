"""What a table of a transfer problem says of transfer: whether it harmed, helped, or was not shown to do either."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from transfuse.report.comparison import Row
from transfuse.report.contests import Contest
from transfuse.report.numbers import decimals, fixed

_FALLING = 0.01  # of the lowest validation loss: less is flat
_BUDGET = ("epochs", "steps")  # what a run was allowed


def transfer_notes(contest: Contest, rows: Sequence[Row], reference: str | None) -> list[str]:
    """Sentences under the table of a transfer problem; none for other problems, or without the reference."""
    if contest.kind != "transfer" or reference is None:
        return []
    return [*on_negative_transfer(rows), *on_benefit(rows), *_on_reference(contest)]


def on_negative_transfer(rows: Sequence[Row]) -> list[str]:
    """Names the strategies that transfer and are worse than training from scratch.

    Args:
        rows: of one table, the reference among them.
    """
    reference = [row for row in rows if row.verdict == "reference"]
    harmed = [row for row in _transferring(rows) if row.verdict == "worse"]
    same = [row for row in harmed if any(_allowed(row) == _allowed(other) for other in reference)]
    others = [row for row in harmed if row not in same]
    return [
        f"{', '.join(row.strategy for row in named)}: worse than scratch at {budget}: negative transfer."
        for named, budget in ((same, "the same budget"), (others, "another budget"))
        if named
    ]


def on_benefit(rows: Sequence[Row]) -> list[str]:
    """Says so where no strategy that transfers is shown to be better than scratch, and what could not be resolved."""
    compared = [row for row in _transferring(rows) if row.difference is not None]
    if not compared or any(row.verdict == "better" for row in compared):
        return []
    sentence = "transfer is not shown to help here: no strategy that transfers is better than scratch."
    halves = [row.difference.half_width for row in compared if row.difference and row.difference.degrees > 0]
    if not halves:
        return [sentence]
    return [f"{sentence[:-1]}; effects below {fixed(median(halves), decimals([], halves))} cannot be resolved."]


def _on_reference(contest: Contest) -> list[str]:
    """Whether scratch had enough steps: one that had too few flatters transfer."""
    known = [
        (entry.record.fused.get("diagnostics") or {}).get("late_gain")
        for entry in contest.entries
        if entry.record.strategy == contest.reference
    ]
    gains = [gain for gain in known if gain is not None]
    if not gains:
        return []
    if fmean(gains) < _FALLING:
        return [
            f"{contest.reference}: its validation loss was no longer falling in the last fifth of its training; a "
            "learning rate that ends at 0 flattens it too, so that is no proof of enough steps."
        ]
    return [
        f"{contest.reference}: its validation loss was still falling at the end, by {100 * fmean(gains):.2g} % in the "
        "last fifth of its training (mean over seeds): more steps may help it, and fewer flatter transfer."
    ]


def _transferring(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.family != "baseline"]


def _allowed(row: Row) -> tuple[float | None, ...]:
    return tuple(row.budget.get(name) for name in _BUDGET)
