"""What the report says of transfer: harm is named, missing benefit too, and whether scratch had enough steps."""

from __future__ import annotations

from typing import Any

import pytest

from transfuse.report import compare
from transfuse.report.comparison import Table
from transfuse.report.findings import findings

PROBLEM = {"kind": "transfer", "tasks": [{"name": "y", "kind": "classification"}], "selection_metric": "accuracy"}
SCRATCH = "baseline/scratch"
NO_BENEFIT = "transfer is not shown to help here: no strategy that transfers is better than scratch"


def table(sweep: Any, skills: dict[str, float], seeds: int = 3, **scratch: Any) -> Table:
    for seed in range(seeds):
        for strategy, skill in skills.items():
            changes = scratch if strategy == SCRATCH else {}
            sweep.run(strategy, seed=seed, problem=PROBLEM, skill=skill, **changes)
    return compare(sweep.folder).tables[0]


def with_gain(gain: float | None) -> dict[str, Any]:
    return {"fused": {"diagnostics": {"late_gain": gain}}}


def test_harm_is_named_at_the_same_budget(sweep: Any) -> None:
    skills = {SCRATCH: 3.0, "parameter_transfer/linear_probe": 0.1, "parameter_transfer/full_finetune": 3.0}
    found = table(sweep, skills)
    sentence = "parameter_transfer/linear_probe: worse than scratch at the same budget: negative transfer."
    assert sentence in found.notes and sentence in findings(found)
    halves = [row.difference.half_width for row in found.rows if row.difference is not None]
    (note,) = [note for note in found.notes if note.startswith(NO_BENEFIT)]
    below = float(note.partition("; effects below ")[2].removesuffix(" cannot be resolved."))
    assert below == pytest.approx(sum(halves) / 2, rel=0.06)  # shown with two digits
    assert any(note.startswith(NO_BENEFIT.capitalize()) for note in findings(found))


def test_another_budget_is_told(sweep: Any) -> None:
    skills = {SCRATCH: 3.0, "structure_transfer/search": 0.1}
    found = table(sweep, skills, budget={"epochs": 60, "steps": None})
    assert "structure_transfer/search: worse than scratch at another budget: negative transfer." in found.notes


def test_a_benefit_is_no_harm(sweep: Any) -> None:
    found = table(sweep, {SCRATCH: 0.5, "parameter_transfer/full_finetune": 3.0})
    said = " ".join([*found.notes, *findings(found)])
    assert "Better than baseline/scratch: parameter_transfer/full_finetune" in said
    assert "negative transfer" not in said and NO_BENEFIT not in said


def test_a_worse_baseline_is_no_negative_transfer(sweep: Any) -> None:
    found = table(sweep, {SCRATCH: 3.0, "baseline/best_single": 0.1})
    assert [row.verdict for row in found.rows] == ["reference", "worse"]
    assert not any("negative transfer" in note or NO_BENEFIT in note for note in found.notes)


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        (0.05, "its validation loss was still falling at the end, by 5 % in the last fifth of its training"),
        (0.002, "its validation loss was no longer falling in the last fifth of its training; a learning"),
        (-0.3, "its validation loss was no longer falling in the last fifth of its training; a learning"),
    ],
)
def test_whether_scratch_had_enough_steps(sweep: Any, gain: float, sentence: str) -> None:
    found = table(sweep, {SCRATCH: 1.0, "parameter_transfer/full_finetune": 1.0}, **with_gain(gain))
    assert sum(note.startswith(f"{SCRATCH}: {sentence}") for note in found.notes) == 1


def test_nothing_is_said_where_it_is_unknown(sweep: Any) -> None:
    found = table(sweep, {SCRATCH: 1.0, "parameter_transfer/full_finetune": 1.0}, **with_gain(None))
    assert not any("validation loss" in note for note in found.notes)


def test_other_problems_are_not_spoken_of(sweep: Any) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed, skill=3.0)
        sweep.run("output_fusion/average", seed=seed, skill=0.1)
    found = compare(sweep.folder).tables[0]
    assert [row.verdict for row in found.rows] == ["reference", "worse"]
    assert not any("transfer" in text for text in [*found.notes, *findings(found)])


def test_without_scratch_nothing_is_said(sweep: Any) -> None:
    found = table(sweep, {"parameter_transfer/full_finetune": 1.0})
    assert not any("negative transfer" in note or NO_BENEFIT in note for note in found.notes)


def test_one_test_set_that_each_seed_disturbs_anew(sweep: Any) -> None:
    for seed in (0, 1):
        for strategy in (SCRATCH, "parameter_transfer/full_finetune"):
            sweep.run(strategy, seed=seed, problem=PROBLEM, shared_test=False)
    notes = compare(sweep.folder).tables[0].notes
    assert any("scales, or disturbs, the same test examples anew" in note for note in notes)
