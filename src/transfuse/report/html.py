"""`report/report.html`: a sweep on one page that needs nothing else, with its figures also as PNG files beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from transfuse.report import grids
from transfuse.report.calibration import calibrated
from transfuse.report.comparison import Comparison, Table
from transfuse.report.contests import Contest, contests, paired
from transfuse.report.critical_difference import critical_difference_diagram
from transfuse.report.diversity import pool_diversity
from transfuse.report.environment import commands, environment
from transfuse.report.findings import findings
from transfuse.report.grids import Grid
from transfuse.report.html_figures import Dots, Point, cost_plot, dot_plot
from transfuse.report.per_class import MOST, by_class
from transfuse.report.pictures import Picture
from transfuse.report.prediction_figures import diversity_figure, reliability_figure
from transfuse.report.problems import OverProblems, over_problems
from transfuse.report.tables import direction, places, summary, title
from transfuse.tracking.record import RunRecord
from transfuse.types import Task

_TASKS = 3  # whose predictions are looked into


@dataclass(frozen=True, kw_only=True)
class Part:
    """A heading with what stands below it, in this order."""

    heading: str
    sentences: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """All about one data set and model."""

    heading: str
    findings: tuple[str, ...]
    parts: tuple[Part, ...]


def write_html(comparison: Comparison, records: Mapping[Path, RunRecord], folder: Path) -> list[Path]:
    """Writes `report.html` and `figures/*.png` into `folder`; figures of an earlier report are removed.

    Args:
        comparison: of the sweep.
        records: job folder -> record, completed, that the comparison was made of.
        folder: of the report, made where it is missing.

    Returns:
        The page, then the figures.
    """
    found = contests(records)
    sections = [
        _section(contest, table, comparison.level, f"{number}-" if len(found) > 1 else "")
        for number, (contest, table) in enumerate(zip(found, comparison.tables, strict=True), 1)
    ]
    rankings = enumerate(over_problems(comparison.tables, comparison.level), 1)
    sections += [_ranking(ranking, f"ranks-{number}") for number, ranking in rankings]
    pictures = [picture for section in sections for part in section.parts for picture in part.pictures]
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    files = {figures / f"{picture.name}.png": picture.png for picture in pictures}
    for file in set(figures.glob("*.png")) - set(files):
        file.unlink()
    for file, content in files.items():
        file.write_bytes(content)
    page = folder / "report.html"
    page.write_text(_page(comparison, records, sections), encoding="utf-8")
    return [page, *files]


def _page(comparison: Comparison, records: Mapping[Path, RunRecord], sections: list[Section]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environ = Environment(  # everything that is inserted is escaped
        loader=PackageLoader("transfuse.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    dates = sorted(record.started[:10] for record in records.values() if record.started)
    return environ.get_template("report.html.jinja").render(
        sweep=str(comparison.sweep),
        date=dates[0] if dates else "",
        jobs=len(records) + sum(failure.what == "unknown" for failure in comparison.failed),
        failed=len(comparison.failed),
        sections=sections,
        notes=[line for line in summary(comparison) if not line.startswith("  ")],
        failures=grids.failures(comparison.failed),
        environment=grids.facts(environment(records.values()), "Where and when the jobs ran.", ("what", "value")),
        commands=commands(comparison.sweep),
        level=comparison.level,
    )


def _section(contest: Contest, table: Table, level: float, prefix: str) -> Section:
    if not table.rows:
        return Section(heading=title(table), findings=("No run has a score.",), parts=())
    board = Part(heading="Leaderboard", grids=(grids.leaderboard(table, level),), sentences=table.notes)
    parts = [
        board,
        _seed_by_seed(contest, table, level, prefix),
        *_cost(table, prefix),
        *_predictions(contest, table, prefix),
        Part(heading="All scores", grids=tuple(grids.scores(contest, table, task) for task in contest.tasks)),
        Part(heading="Budgets", grids=(grids.budgets(table),)),
    ]
    return Section(heading=title(table), findings=tuple(findings(table)), parts=tuple(parts))


def _ranking(found: OverProblems, name: str) -> Section:
    first, *others = found.sentences
    part = Part(heading="Mean ranks", pictures=(critical_difference_diagram(found, name=name),), sentences=(*others,))
    return Section(heading=f"All problems, by {found.metric}", findings=(first,), parts=(part,))


def _seed_by_seed(contest: Contest, table: Table, level: float, prefix: str) -> Part:
    digits, _ = places(table)
    metric, axis = contest.metric, f"{table.metric} ({direction(table.higher_is_better)})"
    scores, differences = [], []
    references = [entry for entry in contest.entries if entry.record.strategy == contest.reference]
    for place, row in enumerate(table.rows, 1):
        label, word = grids.named(table, place), row.verdict or ""
        entries = [entry for entry in contest.entries if entry.label == row.strategy and entry.record.seed in row.seeds]
        values = {entry.record.seed: entry.record.metrics[metric] for entry in entries}
        ends = (row.interval.low, row.interval.high)
        scores.append(Dots(label=label, values=values, center=row.mean, low=ends[0], high=ends[1], word=word))
        found = row.difference
        if found is not None:
            pairs = [pair for pair in paired(entries, references) if metric in pair[1].record.metrics]
            values = {a.record.seed: a.record.metrics[metric] - b.record.metrics[metric] for a, b in pairs}
            ends = (found.low, found.high)
            line = Dots(label=label, values=values, center=found.estimate, low=ends[0], high=ends[1], word=word)
            differences.append(line)
    reading = f"Signs: one seed each. Thick mark: their mean. Line: its {100 * level:g} % interval"
    only = [row for row in table.rows if row.verdict == "reference"]
    pictures = [
        dot_plot(
            scores, name=f"{prefix}scores", axis=axis, line_at=only[0].mean if len(only) == 1 else None, digits=digits,
            caption=f"{table.metric} seed by seed. {reading} over seeds.{' Dashed: the reference.' * (len(only) == 1)}",
            alt=f"{table.metric} of {len(scores)} strategies, seed by seed; the leaderboard holds the means.",
        )
    ]  # fmt: skip
    if differences:
        pictures.append(
            dot_plot(
                differences, name=f"{prefix}differences", axis=f"{table.metric}: difference to the reference",
                caption=f"Difference to {table.reference}, paired by seed. {reading}. Dashed: no difference.",
                alt=f"Differences to {table.reference} with intervals; the leaderboard holds their numbers.",
                line_at=0.0, digits=digits,
            )
        )  # fmt: skip
    return Part(heading="Seed by seed", pictures=tuple(pictures))


def _cost(table: Table, prefix: str) -> Iterator[Part]:
    latency = [row.cost.get("latency_ms", math.nan) for row in table.rows]
    parts = [(row.cost.get("base_seconds"), row.cost.get("fuse_seconds")) for row in table.rows]
    seconds = [math.nan if base is None or fuse is None else base + fuse for base, fuse in parts]
    axes = {
        "latency": (latency, "latency of a prediction, ms", "what using it takes"),
        "seconds": (seconds, "base models + fusing, s", "what making it takes"),
    }
    pictures = []
    for name, (values, axis, what) in axes.items():
        points = [
            Point(place=place, label=row.strategy, cost=value, score=row.mean)
            for place, (row, value) in enumerate(zip(table.rows, values, strict=True), 1)
        ]
        if any(math.isfinite(value) for value in values):
            caption = (
                f"Score against {what}. Numbers are places in the leaderboard. Diamonds on the stepped line: the "
                "Pareto front, strategies that no other one beats in cost and score at once. Means over seeds: "
                "a difference between neighbors may be chance."
            )
            pictures.append(
                cost_plot(
                    points, name=f"{prefix}{name}", cost=axis, score=table.metric,
                    higher_is_better=table.higher_is_better, caption=caption,
                )
            )  # fmt: skip
    if pictures:
        yield Part(heading="Score against cost", pictures=tuple(pictures), grids=(grids.costs(table),))


def _predictions(contest: Contest, table: Table, prefix: str) -> Iterator[Part]:
    several = len(contest.tasks) > 1
    for number, task in enumerate(contest.tasks[:_TASKS]):
        of, suffix = (f" of {task.name}", f"-{number}") if several else ("", "")
        found = calibrated(contest, table, task)
        if found:
            picture = reliability_figure(found, name=f"{prefix}reliability{suffix}")
            yield Part(heading=f"Calibration{of}", pictures=(picture,), grids=(grids.reliabilities(found),))
        pools = pool_diversity(contest, task)
        drawn = [
            diversity_figure(pool, name=f"{prefix}diversity{suffix}{f'-{index}' if len(pools) > 1 else ''}")
            for index, pool in enumerate(pools)
        ]
        if drawn:
            grid = grids.diversities(pools)
            yield Part(heading=f"Diversity of the members{of}", pictures=tuple(drawn), grids=(grid,))
        yield from _classes(contest, table, task, of)


def _classes(contest: Contest, table: Table, task: Task, of: str) -> Iterator[Part]:
    found = by_class(contest, table, task)
    if found is None:
        return
    word = "labels" if task.kind == "multilabel" else "classes"
    sentences = [f"Differences of single {word} carry no verdicts: with so many of them some are large by chance."]
    if found.num_classes > MOST:
        sentences.append(f"Shown are the {MOST} of {found.num_classes} {word} with the largest differences.")
    grid = grids.classes(found, table, task)
    yield Part(heading=f"{word.capitalize()}{of}", sentences=tuple(sentences), grids=(grid,))
