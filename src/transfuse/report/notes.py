"""Sentences under a table: what its numbers mean, and what they cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from transfuse.report.comparison import Row
from transfuse.report.contests import Contest
from transfuse.report.examples import MEANS_OVER_EXAMPLES, share_test_set
from transfuse.report.numbers import decimals, fixed
from transfuse.report.overlap import common_test_share
from transfuse.report.transfer import transfer_notes


def table_notes(contest: Contest, rows: Sequence[Row], reference: str | None, level: float) -> tuple[str, ...]:
    """The notes of one table, those that bear on every verdict first."""
    notes = [*transfer_notes(contest, rows, reference), *_on_reference(contest, rows, reference, level)]
    seeds = {entry.record.seed for entry in contest.entries}
    if len(seeds) == 1:
        notes.append(
            "one seed: another training may give another order, which one seed cannot show, so every verdict is "
            "inconclusive. Try seed=0,1,2."
        )
    notes += [
        f"{row.strategy}: {len(row.seeds)} of {len(seeds)} seeds have a result."
        for row in rows
        if len(row.seeds) < len(seeds)
    ]
    notes += _on_needs(contest)
    scored = {(row.strategy, seed) for row in rows for seed in row.seeds}
    notes += [
        f"{entry.label} seed {entry.record.seed}: {contest.metric} is not a number; the run does not count."
        for entry in contest.entries
        if (entry.label, entry.record.seed) not in scored
    ]
    return (*notes, *contest.notes)


def _on_needs(contest: Contest) -> list[str]:
    """What a predictor asks for beside the inputs, which no score shows."""
    needs = {entry.label: (entry.record.fused.get("diagnostics") or {}).get("needs") for entry in contest.entries}
    return [f"{label}: {need}." for label, need in needs.items() if need]


def _on_reference(contest: Contest, rows: Sequence[Row], reference: str | None, level: float) -> list[str]:
    if reference is None:
        return [f"no differences and no verdicts: {contest.reference} has no result in this sweep."]
    compared = [row for row in rows if row.difference is not None]
    unpaired = [row for row in rows if row.verdict is None]
    notes = [f"{row.strategy}: no run of the reference has its seed, settings and test set." for row in unpaired]
    if not compared:
        return notes
    sentence = (
        f"difference: to {reference}, paired by seed, with its {100 * level:g} % interval; verdicts after Holm's "
        f"correction for {len(compared)} comparison{'s' if len(compared) > 1 else ''}."
    )
    return [sentence, _on_chance(contest, compared), *_on_overlap(contest), *_on_resolution(compared), *notes]


def _on_chance(contest: Contest, compared: Sequence[Row]) -> str:
    """Which sources of chance the intervals count."""
    if all(row.difference is not None and row.difference.one_seed for row in compared):
        return "intervals count the chance of test examples alone."
    if all(row.shared_test for row in compared):
        return "intervals count the chance of seeds and of test examples; all seeds share one test set."
    metric = contest.metric.rpartition("/")[2]
    if metric not in MEANS_OVER_EXAMPLES:
        return f"intervals count the chance of seeds alone: {metric} is not a mean over test examples."
    if not share_test_set(contest.entries):
        return "intervals count the chance of seeds alone: each seed has a test set of its own."
    return "intervals count the chance of seeds alone where predictions are missing."


def _on_overlap(contest: Contest) -> list[str]:
    """Reference: C. Nadeau, Y. Bengio, Inference for the generalization error, 2003, Machine Learning 52, 239-281."""
    share = common_test_share(contest.entries)
    if share == 0:
        return []
    if share == 1:
        return [
            "each seed scales, or disturbs, the same test examples anew: the chance of these examples is not counted, "
            "so the intervals are somewhat too narrow (Nadeau and Bengio, 2003)."
        ]
    return [
        f"each seed splits the same data anew: two test sets share {100 * share:.3g} % of their examples on average, "
        "so seeds are not independent and the intervals are somewhat too narrow (Nadeau and Bengio, 2003)."
    ]


def _on_resolution(compared: Sequence[Row]) -> list[str]:
    halves = [
        row.difference.half_width for row in compared if row.difference is not None and row.difference.degrees > 0
    ]
    if not halves:
        return []
    places = decimals([], halves)
    between = f" ({fixed(min(halves), places)} to {fixed(max(halves), places)})" if len(halves) > 1 else ""
    return [f"smallest effect that this sweep resolves, before correction: {fixed(median(halves), places)}{between}."]
