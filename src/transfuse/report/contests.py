"""Sorts the runs of a sweep into contests: runs that solve the same problem with the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfuse.metrics import metric_of
from transfuse.report.labels import Settings, differing, joined
from transfuse.report.picked import Picked, pick, without
from transfuse.tracking.record import RunRecord
from transfuse.types import Task

REFERENCE = {
    "single_task": "baseline/best_single",
    "multi_task": "baseline/single_task",
    "transfer": "baseline/scratch",
}
# parts of the config that do not make another arm, or that are told apart by other means
_APART = frozenset({"seed", "paths", "tracking", "trainer", "hydra", "data", "model", "strategy"})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished run in its contest.

    Attributes:
        folder: of the job.
        record: of the job.
        label: the strategy and its settings that differ inside the contest.
        shared: settings outside the strategy (base models, training, ...) that differ inside the contest.
    """

    folder: Path
    record: RunRecord
    label: str
    shared: Settings


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Runs whose results can be compared.

    Attributes:
        data: name of the data, with the settings that differ inside the sweep.
        model: name of the model, the same way.
        kind: of the problem.
        tasks: of the problem, in order.
        selection_metric: of the runs.
        entries: finished runs, one a label and seed.
        notes: what was left out, one sentence each.
    """

    data: str
    model: str
    kind: str
    tasks: tuple[Task, ...]
    selection_metric: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Name of the strategy that the others are compared to."""
        return REFERENCE[self.kind]

    @property
    def metric(self) -> str:
        """The metric that decides, as named in the records."""
        if self.kind == "multi_task":
            known = any(entry.record.metrics.get("test/delta_m") is not None for entry in self.entries)
            return "test/delta_m" if known else "test/mean_rank"
        return self._of_first_task(metric_of(self.tasks[0], self.selection_metric))

    @property
    def beside(self) -> str:
        """A second metric, to be read beside the one that decides."""
        if self.kind == "multi_task":
            return "test/mean_rank" if self.metric == "test/delta_m" else "test/delta_m"
        names = ("rmse", "r2") if self.tasks[0].kind == "regression" else ("nll", "accuracy")
        return next(name for name in map(self._of_first_task, reversed(names)) if name != self.metric)

    def _of_first_task(self, metric: str) -> str:
        return f"test/{metric}" if len(self.tasks) == 1 else f"test/{self.tasks[0].name}/{metric}"


def contests(records: Mapping[Path, RunRecord]) -> tuple[Contest, ...]:
    """The contests of a sweep, in the order in which they occur.

    Failed runs are left out, and those that lose on validation data where `evaluation.tuned` names settings of which
    each strategy takes its best.
    """
    picked = pick({folder: record for folder, record in records.items() if record.status == "finished"})
    finished = picked.records
    data = _titles(finished, "data", frozenset())
    model = _titles(finished, "model", frozenset({"sharing"}))
    groups: dict[tuple[str, str, str], dict[Path, RunRecord]] = {}
    for folder, record in finished.items():
        groups.setdefault((data[folder], model[folder], record.problem["kind"]), {})[folder] = record
    return tuple(_contest(*key, group, picked) for key, group in groups.items())


def matching(entry: Entry, candidates: Sequence[Entry]) -> Entry | None:
    """The candidate of the same seed and shared settings; where there is one of that seed alone, that one."""
    same_seed = [other for other in candidates if other.record.seed == entry.record.seed]
    same = [other for other in same_seed if other.shared == entry.shared]
    if len(same) == 1:
        return same[0]
    return same_seed[0] if len(same_seed) == 1 else None


def paired(entries: Sequence[Entry], references: Sequence[Entry]) -> tuple[tuple[Entry, Entry], ...]:
    """Each entry with the reference that matches it and was scored on the same test set; others are left out."""
    partners = [(entry, matching(entry, references)) for entry in entries]
    return tuple((mine, other) for mine, other in partners if other is not None and _same_test(mine, other))


def _same_test(mine: Entry, other: Entry) -> bool:
    return mine.record.fingerprints.get("test") == other.record.fingerprints.get("test")


def _contest(data: str, model: str, kind: str, records: Mapping[Path, RunRecord], picked: Picked) -> Contest:
    entries: dict[tuple[str, int], Entry] = {}
    repeated = []
    for entry in _entries(records):
        key = (entry.label, entry.record.seed)
        if key in entries:
            repeated.append(f"{entry.label} seed {entry.record.seed} was run again: job {entry.folder.name} counts.")
        entries[key] = entry
    problem = next(iter(records.values())).problem
    return Contest(
        data=data,
        model=model,
        kind=kind,
        tasks=tuple(Task(name=task["name"], kind=task["kind"], outputs=0) for task in problem["tasks"]),
        selection_metric=problem["selection_metric"],
        entries=tuple(entries.values()),
        notes=(*picked.notes, *repeated),
    )


def _entries(records: Mapping[Path, RunRecord]) -> list[Entry]:
    shared = dict(zip(records, differing([_outside(record.config) for record in records.values()]), strict=True))
    own: dict[Path, Settings] = {}
    for strategy in dict.fromkeys(record.strategy for record in records.values()):
        same = [folder for folder, record in records.items() if record.strategy == strategy]
        configs = [_part(records[folder], "strategy") for folder in same]
        own |= dict(zip(same, differing(configs), strict=True))
    return [
        Entry(
            folder=folder,
            record=record,
            label=joined(record.strategy, _named(own[folder], "strategy") | shared[folder]),
            shared=shared[folder],
        )
        for folder, record in records.items()
    ]


def _titles(records: Mapping[Path, RunRecord], part: str, ignore: frozenset[str]) -> dict[Path, str]:
    """Job folder -> name of its data (or model) with the settings that differ among those of that name."""
    titles: dict[Path, str] = {}
    names = {folder: {"data": record.data, "model": record.model}[part] for folder, record in records.items()}
    for name in dict.fromkeys(names.values()):
        same = [folder for folder, other in names.items() if other == name]
        found = differing([_part(records[folder], part) for folder in same], ignore)
        titles |= {folder: joined(name, _named(settings, part)) for folder, settings in zip(same, found, strict=True)}
    return titles


def _part(record: RunRecord, part: str) -> Any:
    return record.config.get(part, {})


def _named(settings: Settings, part: str) -> Settings:
    """A part that differs as a whole goes by the part's own name."""
    return {key or part: value for key, value in settings.items()}


def _outside(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the parts that are told apart by other means, but with how the model shares layers."""
    model = config.get("model", {})
    sharing = {"model.sharing": model["sharing"]} if isinstance(model, Mapping) and "sharing" in model else {}
    return without({key: value for key, value in config.items() if key not in _APART} | sharing)
