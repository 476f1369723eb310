from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from transfuse.report import Comparison, compare, render, report, write_report
from transfuse.report.numbers import amount, decimals, fixed, signed, spread
from transfuse.tracking.record import RunRecord


@pytest.fixture
def comparison(sweep) -> Comparison:
    """Long names, settings with brackets, large costs, a failed job."""
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("parameter_transfer/discriminative_lr", seed=seed, skill=1.15)
        sweep.run("output_fusion/average", seed=seed, skill=0.9, fields={"weights": [0.5, 0.5]})
        sweep.run("output_fusion/average", seed=seed, skill=0.7, fields={"weights": "uniform"})
    cost = {"base_seconds": 123456.7, "fuse_seconds": 0.0, "parameters": 22_700_000, "latency_ms": 0.01234}
    sweep.run("weight_fusion/uniform_soup", seed=0, cost=cost)
    sweep.record(RunRecord(status="failed", error="StoreError: the [store] is full.", strategy="a/b", seed=1))
    return compare(sweep.folder)


def _printed(comparison: Comparison, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(comparison))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_nothing_is_cut_off(comparison: Comparison, width: int) -> None:
    text = _printed(comparison, width)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width
    for row in comparison.rows:
        assert spread(row.mean, row.sd, 4) in text
        if row.difference is not None and row.pairs > 1:
            found = row.difference
            assert f"{found.estimate:+.4f}" in text
            assert f"[{found.low:+.4f}, {found.high:+.4f}]" in text
    for part in ("123,457", "22.7 M", "0.0123", "109,386", "weights=[0.5,0.5]", "StoreError: the [store] is full."):
        assert part in text
    for name in ("discriminative_lr", "best_single", "uniform_soup"):
        assert name in text


def test_words_carry_the_meaning_without_color(comparison: Comparison) -> None:
    text = str(comparison)
    for part in ("lower is better", "reference", "better", "inconclusive", "3 seeds", "+- 0.", "95 % interval"):
        assert part in text
    assert "difference: to baseline/best_single, paired by seed" in text
    assert "base models: 0 trained, 6 reused" in text
    assert "\x1b" not in text


def test_best_comes_first(comparison: Comparison) -> None:
    means = [row.mean for row in comparison.rows]
    assert means == sorted(means)
    assert len(means) == 5


def test_csv_holds_the_unrounded_numbers(comparison: Comparison, tmp_path) -> None:
    csv, _ = write_report(comparison, tmp_path / "report")
    frame = pd.read_csv(csv)
    assert list(frame["strategy"]) == [row.strategy for row in comparison.rows]
    for entry, row in zip(frame.to_dict("records"), comparison.rows, strict=True):
        assert entry["mean"] == pytest.approx(row.mean, rel=1e-12)
        assert (entry["seeds"], entry["verdict"], entry["metric"]) == (len(row.seeds), row.verdict, "nll")
        assert entry["parameters"] == row.cost["parameters"]
        if row.difference is not None:
            assert entry["difference_low"] == pytest.approx(row.difference.low, rel=1e-12)
            assert entry["p_holm"] == pytest.approx(row.p_holm, rel=1e-12)
    assert frame.loc[frame["verdict"] == "reference", "difference"].isna().all()


def test_markdown(comparison: Comparison, tmp_path) -> None:
    _, markdown = write_report(comparison, tmp_path / "report")
    lines = markdown.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [line.split("`")[1] for line in rows] == [row.strategy for row in comparison.rows]
    header = next(line for line in lines if line.startswith("| strategy"))
    assert {line.count("|") for line in rows} == {header.count("|")}
    assert "nll (lower is better)" in header
    assert "- job 13 (a/b, seed 1): StoreError: the [store] is full." in lines


def test_report_completes_writes_and_prints(sweep, tmp_path, capsys) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0)
    job = sweep.multi_task("multi_task/joint_sum", accuracy=0.84, rmse=1.8)
    result = report("last", tmp_path / "outputs")
    assert result.added[job]["test/delta_m"] == pytest.approx(7.5)
    assert RunRecord.read(job).metrics["test/delta_m"] == pytest.approx(7.5)
    printed = capsys.readouterr().out
    for name in ("leaderboard.csv", "leaderboard.md"):
        assert (sweep.folder / "report" / name).exists()
        assert str(sweep.folder / "report" / name) in printed
    # the report's own folder is no job
    assert len(report("last", tmp_path / "outputs").rows) == 2


def test_tasks_are_shown_beside_their_single_networks(sweep, tmp_path) -> None:
    for seed, accuracy in ((0, 0.84), (1, 0.76)):
        sweep.multi_task("baseline/single_task", seed=seed, accuracy=0.8, rmse=2.0)
        sweep.multi_task("weight_fusion/ties", seed=seed, accuracy=accuracy, rmse=2.5)
    comparison = compare(sweep.folder)
    by_strategy = {row.strategy: row.normalized for row in comparison.rows}
    assert by_strategy["baseline/single_task"] == {"a": 1.0, "b": 1.0}
    assert by_strategy["weight_fusion/ties"] == pytest.approx({"a": 1.0, "b": 0.8})  # means over seeds
    csv, markdown = write_report(comparison, tmp_path / "report")
    lines = markdown.read_text().splitlines()
    said = "Each task's score divided by its network's in baseline/single_task (1: as good; higher is better):"
    place = lines.index(said)
    assert lines[place + 2 : place + 6] == [
        "| strategy | a | b |",
        "| --- | ---: | ---: |",
        "| `baseline/single_task` | 1.0000 | 1.0000 |",
        "| `weight_fusion/ties` | 1.0000 | 0.8000 |",
    ]
    frame = pd.read_csv(csv).set_index("strategy")
    assert frame.loc["weight_fusion/ties", "normalized_b"] == pytest.approx(0.8)


def test_without_single_networks_there_is_no_table_of_tasks(sweep, tmp_path) -> None:
    sweep.multi_task("weight_fusion/ties", accuracy=0.8, rmse=2.0)
    _, markdown = write_report(compare(sweep.folder), tmp_path / "report")
    assert "divided by" not in markdown.read_text()


def test_what_a_predictor_needs_beside_inputs_is_marked(sweep) -> None:
    emr = {"diagnostics": {"needs": "task id at inference"}}
    for seed in (0, 1):
        sweep.multi_task("baseline/single_task", seed=seed, accuracy=0.8, rmse=2.0)
        sweep.multi_task("weight_fusion/emr", seed=seed, accuracy=0.8, rmse=2.0, fused=emr)
    (table,) = compare(sweep.folder).tables
    assert [note for note in table.notes if "task id" in note] == ["weight_fusion/emr: task id at inference."]


def test_numbers() -> None:
    assert decimals([0.1239, 0.1428], [0.0012]) == 4
    assert decimals([54.2, 53.1], [1.0]) == 2
    assert decimals([5412.3], [80.0]) == 0
    assert decimals([1.618], [0.00012]) == 5
    assert decimals([], []) == 0
    assert decimals([1e-12], [0.0]) == 6
    assert (fixed(0.5, 3), fixed(float("nan"), 3), signed(0.5, 2)) == ("0.500", "-", "+0.50")
    assert (spread(1.0, 0.25, 2), spread(1.0, float("nan"), 2)) == ("1.00 +- 0.25", "1.00")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.4567, "0.457"), (12.345, "12.3"), (0.0, "0"), (109386, "109,386"), (1234.5, "1,234"), (22.7e6, "22.7 M"),
     (7.24e9, "7.2 G"), (0.01234, "0.0123"), (None, "-")],
)  # fmt: skip
def test_amounts(value: float | None, expected: str) -> None:
    assert amount(value) == expected
