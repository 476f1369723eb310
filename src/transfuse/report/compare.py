"""`transfuse.compare`: from a sweep's folder to its leaderboard with evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfuse.evidence import Interval, holm, mean_interval, paired_difference, verdict
from transfuse.evidence.interval import require_level
from transfuse.metrics import higher_is_better
from transfuse.report.comparison import Comparison, Row, Table
from transfuse.report.contests import Contest, Entry, contests, paired
from transfuse.report.examples import ExampleLosses
from transfuse.report.multi_task import Completion, complete
from transfuse.report.notes import table_notes
from transfuse.report.sweeps import Sweep, count_base_models, find_sweep, read_sweep

_DIRECTIONS = {"delta_m": True, "mean_rank": False}


def compare(sweep: str | Path = "last", outputs: str | Path = "outputs", level: float = 0.95) -> Comparison:
    """The leaderboard of a sweep, with paired differences to the reference strategy; nothing is written.

    Args:
        sweep: `last` (the newest) or a sweep folder.
        outputs: where sweeps are written (`paths.outputs`); read for `last` alone.
        level: of the intervals, in (0, 1); verdicts hold at a chance of error of 1 - `level`.

    Returns:
        The tables, one for each data set and model; print it, or take `to_frame()`.

    Raises:
        DataError: there is no such sweep.
        IncomparableBaselineError: multi-task runs and their single-task runs differ in model, budget or split.
    """
    found = read_sweep(find_sweep(sweep, outputs))
    return comparison(found, complete(found.records), level)


def comparison(sweep: Sweep, completion: Completion, level: float) -> Comparison:
    """The comparison of records that were read and completed before."""
    require_level(level)
    trained, reused = count_base_models(sweep.records)
    return Comparison(
        sweep=sweep.folder,
        level=level,
        tables=tuple(_table(contest, level) for contest in contests(completion.records)),
        failed=sweep.failures,
        trained=trained,
        reused=reused,
        notes=completion.notes,
        added=completion.added,
    )


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """A strategy's runs that have a primary score, seed by seed, and the reference's runs that they are paired with."""

    label: str
    entries: tuple[Entry, ...]
    pairs: tuple[tuple[Entry, Entry], ...]
    is_reference: bool


def _table(contest: Contest, level: float) -> Table:
    metric, upward = contest.metric, _upward(contest.metric)
    scored = _scored(contest)
    losses = ExampleLosses(task=contest.tasks[0], metric=_short(metric))
    differences = [_difference(runs, metric, losses, level) for runs in scored]
    p_holm = holm([found.p_value if found else math.nan for found, _ in differences])
    rows = [
        _row(runs, contest, found, shared, p, level)
        for runs, (found, shared), p in zip(scored, differences, p_holm, strict=True)
    ]
    references = [runs.label for runs in scored if runs.is_reference]
    reference = references[0] if len(references) == 1 else contest.reference if references else None
    return Table(
        data=contest.data,
        model=contest.model,
        kind=contest.kind,
        metric=metric.removeprefix("test/"),
        higher_is_better=upward,
        beside=contest.beside.removeprefix("test/"),
        beside_higher_is_better=_upward(contest.beside),
        reference=reference,
        seeds=tuple(sorted({entry.record.seed for entry in contest.entries})),
        rows=tuple(sorted(rows, key=lambda row: (-row.mean if upward else row.mean, row.strategy))),
        notes=table_notes(contest, rows, reference, level),
    )


def _scored(contest: Contest) -> list[_Scored]:
    """Runs with a finite primary score by label, each paired with the reference's run of the same seed and settings."""
    known = [entry for entry in contest.entries if entry.record.metrics.get(contest.metric) is not None]
    # ranks are relative already, and their differences depend on who else takes part
    name = None if contest.metric == "test/mean_rank" else contest.reference
    references = [entry for entry in known if entry.record.strategy == name]
    found = []
    for label in dict.fromkeys(entry.label for entry in known):
        entries = sorted((entry for entry in known if entry.label == label), key=lambda entry: entry.record.seed)
        is_reference = entries[0].record.strategy == name
        pairs = () if is_reference else paired(entries, references)
        found.append(_Scored(label=label, entries=tuple(entries), pairs=pairs, is_reference=is_reference))
    return found


def _difference(runs: _Scored, metric: str, losses: ExampleLosses, level: float) -> tuple[Interval | None, bool]:
    """The paired difference of a strategy to the reference, and whether it counts the chance of the test examples."""
    if not runs.pairs:
        return None, False
    by_seed = [mine.record.metrics[metric] - other.record.metrics[metric] for mine, other in runs.pairs]
    examples_SN = losses.differences(runs.pairs)
    return paired_difference(by_seed, examples_SN, level), examples_SN is not None


def _row(
    runs: _Scored, contest: Contest, difference: Interval | None, shared_test: bool, p_holm: float, level: float
) -> Row:
    values = _values(runs.entries, contest.metric)
    beside = _values(runs.entries, contest.beside)
    found: str | None = "reference" if runs.is_reference else None
    if difference is not None:
        found = verdict(difference, p_holm, _upward(contest.metric), alpha=1 - level)
    return Row(
        strategy=runs.label,
        family=runs.entries[0].record.family,
        seeds=tuple(entry.record.seed for entry in runs.entries),
        mean=float(np.mean(values)),
        sd=_sd(values),
        interval=mean_interval(values, level),
        beside=float(np.mean(beside)) if beside else math.nan,
        beside_sd=_sd(beside),
        difference=difference,
        pairs=len(runs.pairs),
        shared_test=shared_test,
        p_holm=p_holm,
        verdict=found,
        normalized=_normalized(runs, contest),
        cost=_means([entry.record.cost for entry in runs.entries]),
        budget=_means([entry.record.budget for entry in runs.entries]),
    )


def _normalized(runs: _Scored, contest: Contest) -> dict[str, float]:
    means = {task.name: _values(runs.entries, f"test/{task.name}/normalized") for task in contest.tasks}
    return {task: float(np.mean(values)) for task, values in means.items() if values}


def _values(entries: Sequence[Entry], metric: str) -> list[float]:
    found = [entry.record.metrics.get(metric) for entry in entries]
    return [value for value in found if value is not None]


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _means(parts: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Means over runs of what all of them know as numbers."""
    return {
        name: float(np.mean([part[name] for part in parts]))
        for name in parts[0]
        if all(isinstance(part.get(name), int | float) for part in parts)
    }


def _short(metric: str) -> str:
    return metric.rpartition("/")[2]


def _upward(metric: str) -> bool:
    name = _short(metric)
    return _DIRECTIONS[name] if name in _DIRECTIONS else higher_is_better(name)
