from __future__ import annotations

import pytest

from transfuse.report import Failure, compare, find_sweep, read_sweep
from transfuse.report.sweeps import count_base_models
from transfuse.tracking.record import RunRecord
from transfuse.types import DataError


def test_last_is_the_newest_by_name_that_has_jobs(tmp_path, another) -> None:
    newest = another("2026-01-03", "09-00-00-000002")
    newest.job()
    for date, time in (("2026-01-02", "23-00-00-000000"), ("2026-01-03", "09-00-00-000001")):
        another(date, time).job()
    (tmp_path / "outputs" / "sweeps" / "2026-01-04" / "08-00-00-000000" / "report").mkdir(parents=True)
    assert find_sweep("last", tmp_path / "outputs") == newest.folder
    assert find_sweep(newest.folder) == newest.folder


def test_no_sweep_is_said(tmp_path) -> None:
    with pytest.raises(DataError, match=r"No sweep in .*sweeps\. Start one with `transfuse -m"):
        find_sweep("last", tmp_path)
    with pytest.raises(DataError, match="should be a sweep folder"):
        find_sweep(tmp_path / "missing")


def test_jobs_in_order_of_their_numbers(sweep) -> None:
    for _ in range(11):
        sweep.record(RunRecord(strategy="output_fusion/average"))
    (sweep.folder / ".submitit").mkdir()
    assert [job.name for job in read_sweep(sweep.folder).records] == [str(number) for number in range(11)]


def test_failed_missing_and_damaged_records(sweep) -> None:
    sweep.run("output_fusion/average")
    error = "IncompatibleStrategyError: no."
    sweep.record(RunRecord(status="failed", error=error, strategy="a/b", data="digits", model="mlp", seed=3))
    sweep.job()
    (sweep.job() / "record.json").write_text("{")
    (sweep.job() / "record.json").write_text("[]")
    (sweep.job() / "record.json").write_text('{"schema": 99}')
    comparison = compare(sweep.folder)
    assert comparison.failed[:2] == (
        Failure(job="1", what="a/b, digits, mlp, seed 3", reason=error),
        Failure(job="2", what="unknown", reason="no record: the job was killed?"),
    )
    assert [failure.job for failure in comparison.failed] == ["1", "2", "3", "4", "5"]
    assert "schema 99" in comparison.failed[4].reason
    assert [row.strategy for row in comparison.rows] == ["output_fusion/average"]


def test_all_failed_is_still_a_report(sweep) -> None:
    sweep.job()
    comparison = compare(sweep.folder)
    assert comparison.tables == ()
    assert "no job of this sweep has a result." in str(comparison)


def test_base_models_count_once_each(sweep) -> None:
    def models(**trained_here: bool):
        return tuple({"key": key, "name": key, "trained_here": flag} for key, flag in trained_here.items())

    # a and b are trained by the first job and read by the second; c was in the store before; d came with a failed job
    sweep.record(RunRecord(base_models=models(a=True, b=True, c=False), status="failed"))
    sweep.record(RunRecord(base_models=models(a=False, b=False, c=False), status="failed"))
    sweep.record(RunRecord(base_models=models(a=False, d=True), status="failed"))
    assert count_base_models(read_sweep(sweep.folder).records) == (3, 1)
    comparison = compare(sweep.folder)
    assert (comparison.trained, comparison.reused) == (3, 1)
