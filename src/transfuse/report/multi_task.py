"""Completes multi-task runs when their sweep has ended: delta-m against single-task networks, and mean ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from transfuse.metrics import DELTA_M_METRICS, delta_m, delta_m_literature, higher_is_better, normalized, unstable_tasks
from transfuse.report.contests import REFERENCE, Contest, Entry, contests, matching
from transfuse.tracking.record import RunRecord
from transfuse.types import Scores, Task, TransfuseError

_BASELINE = REFERENCE["multi_task"]
_BUDGET = ("epochs", "steps", "batch_size", "accumulate")


class IncomparableBaselineError(TransfuseError):
    """Single-task runs of the same data and seed exist, but with another model, budget or split."""


class UnstableBaselineWarning(UserWarning):
    """A single-task network is so good that a ratio to its score means little."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Records with what only the whole sweep can tell.

    Attributes:
        records: job folder -> record, those of multi-task runs completed.
        added: job folder -> the metrics that were computed, for the tracker.
        notes: what could not be computed and why, one sentence each.
    """

    records: dict[Path, RunRecord]
    added: dict[Path, Scores]
    notes: tuple[str, ...]


def complete(records: Mapping[Path, RunRecord]) -> Completion:
    """Computes what only the whole sweep can tell of every finished multi-task run.

    `test/delta_m`, `test/delta_m_literature`, `test/mean_rank`, and for each task `test/<task>/normalized`, its score
    divided by its single-task network's. These networks are the run `baseline/single_task` of the same data, split,
    seed, model and budget. The rank is among the strategies of one seed, on the metrics that delta-m uses: averaged
    within a task, then over tasks.

    Raises:
        IncomparableBaselineError: there are single-task runs of the same data and seed, but none is comparable.
    """
    found = [contest for contest in contests(records) if contest.kind == "multi_task"]
    added: dict[Path, Scores] = {}
    notes: list[str] = []
    for contest in found:
        rivals = [other for other in found if other.data == contest.data]
        without: set[int] = set()
        for entry in contest.entries:
            added[entry.folder] = _ranks(contest, entry)
            baseline = _baseline(contest, entry, rivals, records)
            if baseline is None:
                without.add(entry.record.seed)
            else:
                values, note = _changes(contest.tasks, entry, baseline)
                added[entry.folder] |= values
                notes += note
        if without:
            seeds = ", ".join(map(str, sorted(without)))
            notes.append(
                f"{contest.data}, {contest.model}: delta_m needs {_BASELINE} in the sweep. Found none of seed {seeds}."
            )
    completed = {
        folder: replace(record, metrics={**record.metrics, **added.get(folder, {})})
        for folder, record in records.items()
    }
    return Completion(records=completed, added=added, notes=tuple(notes))


def add_delta_m(records: Mapping[Path, RunRecord]) -> Completion:
    """`complete`, written back to each run's `record.json`; doing it again changes nothing."""
    completion = complete(records)
    for folder, record in completion.records.items():
        if record != records[folder]:
            record.write(folder)
    return completion


def _baseline(
    contest: Contest, entry: Entry, rivals: Sequence[Contest], records: Mapping[Path, RunRecord]
) -> Entry | None:
    """The single-task run to measure `entry` by; None where the sweep has none or it failed."""
    if entry.record.strategy == _BASELINE:
        return entry
    differences: dict[Path, str] = {}
    comparable = []
    for rival in rivals:
        for other in rival.entries:
            if other.record.strategy == _BASELINE and other.record.seed == entry.record.seed:
                differences[other.folder] = _difference(contest, entry, rival, other)
                comparable += [] if differences[other.folder] else [other]
    if not differences or (not comparable and _one_failed(entry, records)):
        return None
    baseline = matching(entry, comparable)
    if baseline is None:
        reasons = "; ".join(f"job {folder.name}: {text}" for folder, text in differences.items() if text)
        raise IncomparableBaselineError(
            f"{entry.label} (job {entry.folder.name}, seed {entry.record.seed}) needs one {_BASELINE} run of the same "
            f"data, model and budget. Found {len(comparable)} of {len(differences)} that fit. {reasons}".strip()
        )
    return baseline


def _difference(contest: Contest, entry: Entry, rival: Contest, other: Entry) -> str:
    """In what the baseline `other` differs from `entry`; empty where they are comparable."""
    mine, theirs = _training(entry.record), _training(other.record)
    pairs: dict[str, tuple[object, object]] = {"model": (contest.model, rival.model)}
    pairs |= {f"training.{name}": (mine.get(name), theirs.get(name)) for name in _BUDGET}
    found = [f"{name} is {b}, not {a}" for name, (a, b) in pairs.items() if a != b]
    return ", ".join(found + ([] if entry.record.fingerprints == other.record.fingerprints else ["the split differs"]))


def _training(record: RunRecord) -> Mapping[str, object]:
    return record.config.get("training") or {}


def _one_failed(entry: Entry, records: Mapping[Path, RunRecord]) -> bool:
    mine = (entry.record.data, entry.record.seed, _BASELINE, "failed")
    return any((other.data, other.seed, other.strategy, other.status) == mine for other in records.values())


def _changes(tasks: Sequence[Task], entry: Entry, baseline: Entry) -> tuple[Scores, list[str]]:
    where = f"{entry.label} seed {entry.record.seed}"
    single = _by_task(tasks, baseline.record)
    if entry is baseline:
        ones = {f"test/{task}/normalized": 1.0 for task, values in single.items() if values}
        return {"test/delta_m": 0.0, "test/delta_m_literature": 0.0, **ones}, []
    zero = unstable_tasks(single)
    single = {task: values for task, values in single.items() if task not in zero}
    multi = _by_task(tasks, entry.record)
    missing = [task for task, values in single.items() if set(values) - set(multi[task])]
    if missing or not any(single.values()):
        return {}, [f"{where}: delta_m is unknown, no test score of {', '.join(missing) or 'any task'}."]
    values = {
        "test/delta_m": delta_m(multi, single),
        "test/delta_m_literature": delta_m_literature(multi, single),
        **{f"test/{task}/normalized": value for task, value in normalized(multi, single).items()},
    }
    notes = [f"{where}: delta_m leaves out {task}, whose baseline is 0." for task in zero]
    return values, notes + _unstable(where, multi, single, baseline.record)


def _unstable(where: str, multi: Mapping[str, Scores], single: Mapping[str, Scores], record: RunRecord) -> list[str]:
    """A note, and a warning, on tasks whose single-task network is too good to divide by."""
    unstable = unstable_tasks(single, _trivial(single, record))
    if not unstable:
        return []
    stable = {task: values for task, values in single.items() if task not in unstable}
    rest = f"{delta_m(multi, stable):.3f} without it" if any(stable.values()) else "there is no other task"
    note = (
        f"{where}: delta_m divides by the single-task error of {', '.join(unstable)}, below 5 % of the trivial "
        f"predictor's: {delta_m(multi, single):.3f} with it, {rest}."
    )
    warnings.warn(note, UnstableBaselineWarning, stacklevel=2)
    return [note]


def _trivial(single: Mapping[str, Scores], record: RunRecord) -> dict[str, Scores]:
    """What predicting the mean of the test targets gives: rmse / sqrt(1 - R^2)."""
    found: dict[str, Scores] = {}
    for task, values in single.items():
        r2 = record.metrics.get(f"test/{task}/r2")
        if "rmse" in values and r2 is not None and r2 < 1:
            found[task] = {"rmse": values["rmse"] / math.sqrt(1 - r2)}
    return found


def _by_task(tasks: Sequence[Task], record: RunRecord) -> dict[str, Scores]:
    """Task -> metric -> test score, of the metrics that delta-m uses."""
    found = {
        task.name: {metric: record.metrics.get(f"test/{task.name}/{metric}") for metric in DELTA_M_METRICS[task.kind]}
        for task in tasks
    }
    return {
        task: {metric: value for metric, value in values.items() if value is not None} for task, values in found.items()
    }


def _ranks(contest: Contest, entry: Entry) -> Scores:
    """`test/mean_rank` among the runs of the same seed, 1 the best, ties shared."""
    rivals = [other for other in contest.entries if other.record.seed == entry.record.seed]
    position = rivals.index(entry)
    scores = [_by_task(contest.tasks, other.record) for other in rivals]
    ranks_T = []
    for task in contest.tasks:
        # metrics that all have
        metrics = [name for name in DELTA_M_METRICS[task.kind] if all(name in values[task.name] for values in scores)]
        ranks = [
            stats.rankdata([values[task.name][name] * (-1 if higher_is_better(name) else 1) for values in scores])
            for name in metrics
        ]
        ranks_T += [float(np.mean([rank[position] for rank in ranks]))] if ranks else []
    return {"test/mean_rank": float(np.mean(ranks_T))} if ranks_T else {}
