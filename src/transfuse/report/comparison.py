"""What a sweep shows, as data: one row a strategy, with its evidence and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from transfuse.evidence import Interval, Verdict
from transfuse.report.sweeps import Failure
from transfuse.types import Scores

COST = ("base_seconds", "fuse_seconds", "parameters", "latency_ms", "flops_per_example", "peak_memory_mb")
BUDGET = ("epochs", "steps", "steps_taken", "trials", "validation_looks")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy.

    Attributes:
        strategy: its label: the name and the settings that differ inside the sweep.
        family: of the strategy.
        seeds: those with a result.
        mean: of the primary metric over seeds, on the test split.
        sd: over seeds; NaN with one.
        interval: of the mean, over seeds alone.
        beside: mean of the second metric; NaN when unknown.
        beside_sd: over seeds; NaN with one.
        difference: paired difference to the reference, with its interval; None for the reference and without one.
        pairs: number of seeds that both have.
        shared_test: whether the interval counts the chance of the test examples too.
        p_holm: p-value of the difference, corrected for the number of strategies; NaN when unknown.
        verdict: `better`, `worse`, `inconclusive`; `reference` for the reference itself; None without a reference.
        normalized: task -> mean over seeds of its score divided by its single-task network's; empty where unknown.
        cost: means over seeds of what the record calls cost.
        budget: means over seeds of what the run took of its budget.
    """

    strategy: str
    family: str
    seeds: tuple[int, ...]
    mean: float
    sd: float
    interval: Interval
    beside: float
    beside_sd: float
    difference: Interval | None
    pairs: int
    shared_test: bool
    p_holm: float
    verdict: Verdict | str | None
    normalized: Mapping[str, float]
    cost: Mapping[str, float]
    budget: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The strategies on one data set with one model, best first.

    Attributes:
        data: name of the data, with the settings that differ inside the sweep.
        model: name of the model, the same way.
        kind: of the problem.
        metric: the one that decides, such as `nll`.
        higher_is_better: its direction.
        beside: a second metric, to be read beside it.
        beside_higher_is_better: its direction.
        reference: label of the strategy that the others are compared to; None when it is not in the sweep. Where
            several runs are references (one a setting of the base models), the name of the strategy.
        seeds: all seeds that occur.
        rows: best first.
        notes: how to read the table, one sentence each.
    """

    data: str
    model: str
    kind: str
    metric: str
    higher_is_better: bool
    beside: str
    beside_higher_is_better: bool
    reference: str | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All tables of a sweep.

    Attributes:
        sweep: folder of the sweep.
        level: of the intervals.
        tables: one for each data set and model.
        failed: jobs without a result.
        trained: number of base models that the sweep trained.
        reused: number of base models that were in the store before.
        notes: about the sweep as a whole, one sentence each.
        added: job folder -> multi-task measures that only the whole sweep can tell.
    """

    sweep: Path
    level: float
    tables: tuple[Table, ...]
    failed: tuple[Failure, ...]
    trained: int
    reused: int
    notes: tuple[str, ...]
    added: Mapping[Path, Scores]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all tables."""
        return tuple(row for table in self.tables for row in table.rows)

    @property
    def reference(self) -> str | None:
        """The reference of the only table, or those of all, separated by commas."""
        names = dict.fromkeys(table.reference for table in self.tables if table.reference)
        return ", ".join(names) or None

    def to_frame(self) -> pd.DataFrame:
        """One row a strategy, numbers unrounded; what is unknown is NaN or None."""
        return pd.DataFrame([_entry(table, row) for table in self.tables for row in table.rows])

    def __str__(self) -> str:
        from rich.console import Console

        from transfuse.report.tables import render

        console = Console(width=120, color_system=None, force_terminal=False)
        with console.capture() as capture:
            console.print(render(self))
        return capture.get()


def _entry(table: Table, row: Row) -> dict[str, object]:
    difference = row.difference
    return {
        "data": table.data,
        "model": table.model,
        "problem": table.kind,
        "strategy": row.strategy,
        "family": row.family,
        "seeds": len(row.seeds),
        "metric": table.metric,
        "higher_is_better": table.higher_is_better,
        "mean": row.mean,
        "sd": row.sd,
        "mean_low": row.interval.low,
        "mean_high": row.interval.high,
        "beside_metric": table.beside,
        "beside_mean": row.beside,
        "beside_sd": row.beside_sd,
        "reference": table.reference,
        "pairs": row.pairs,
        "difference": difference.estimate if difference else None,
        "difference_low": difference.low if difference else None,
        "difference_high": difference.high if difference else None,
        "degrees": difference.degrees if difference else None,
        "shared_test": row.shared_test,
        "p_value": difference.p_value if difference else None,
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        **{f"normalized_{task}": value for task, value in row.normalized.items()},
        **{name: row.cost.get(name) for name in COST},
        **{name: row.budget.get(name) for name in BUDGET},
    }
