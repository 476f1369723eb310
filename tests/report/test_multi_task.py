from __future__ import annotations

import pytest

from transfuse.metrics import delta_m
from transfuse.report import IncomparableBaselineError, UnstableBaselineWarning, add_delta_m, compare, read_sweep
from transfuse.tracking.record import RunRecord


def _added(sweep):
    return {folder.name: values for folder, values in add_delta_m(read_sweep(sweep.folder).records).added.items()}


def test_delta_m_is_written_back(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0)
    job = sweep.multi_task("multi_task/joint_sum", accuracy=0.84, rmse=1.8)
    added = _added(sweep)
    # task a: accuracy +5 %, task b: rmse 10 % lower
    expected = delta_m({"a": {"accuracy": 0.84}, "b": {"rmse": 1.8}}, {"a": {"accuracy": 0.8}, "b": {"rmse": 2.0}})
    assert expected == pytest.approx(7.5)
    shares = {"test/a/normalized": 1.05, "test/b/normalized": 2.0 / 1.8}
    assert added["1"] == pytest.approx(
        {"test/delta_m": 7.5, "test/delta_m_literature": -7.5, "test/mean_rank": 1.0, **shares}
    )
    ones = dict.fromkeys(shares, 1.0)
    assert added["0"] == {"test/delta_m": 0.0, "test/delta_m_literature": 0.0, "test/mean_rank": 2.0, **ones}
    metrics = RunRecord.read(job).metrics
    assert metrics["test/delta_m"] == pytest.approx(7.5)
    assert metrics["test/a/accuracy"] == 0.84


def test_again_changes_nothing(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0)
    job = sweep.multi_task("multi_task/joint_sum", accuracy=0.84, rmse=1.8)
    first = _added(sweep)
    before = (job / "record.json").stat().st_mtime_ns, (job / "record.json").read_text()
    assert _added(sweep) == first
    assert ((job / "record.json").stat().st_mtime_ns, (job / "record.json").read_text()) == before


def test_each_seed_has_its_own_baseline(sweep) -> None:
    for seed, baseline in ((0, 0.8), (1, 0.5)):
        sweep.multi_task("baseline/single_task", seed=seed, accuracy=baseline, rmse=1.0)
        sweep.multi_task("multi_task/joint_sum", seed=seed, accuracy=0.8, rmse=1.0)
    added = _added(sweep)
    assert added["1"]["test/delta_m"] == pytest.approx(0.0)
    assert added["3"]["test/delta_m"] == pytest.approx(30.0)


def test_mean_rank_shares_ties(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=1.0)
    sweep.multi_task("multi_task/joint_sum", accuracy=0.9, rmse=2.0)
    sweep.multi_task("multi_task/upgrad", accuracy=0.9, rmse=1.5)
    ranks = {job: values["test/mean_rank"] for job, values in _added(sweep).items()}
    # accuracy: 3, 1.5, 1.5; rmse: 1, 3, 2
    assert ranks == {"0": 2.0, "1": 2.25, "2": 1.75}


def test_without_a_baseline_ranks_decide_and_it_is_said(sweep) -> None:
    for seed in (0, 1):
        sweep.multi_task("multi_task/joint_sum", seed=seed, accuracy=0.8, rmse=1.0)
        sweep.multi_task("multi_task/upgrad", seed=seed, accuracy=0.9, rmse=0.9)
    comparison = compare(sweep.folder)
    table = comparison.tables[0]
    assert (table.metric, table.higher_is_better, table.reference) == ("mean_rank", False, None)
    assert [row.strategy for row in table.rows] == ["multi_task/upgrad", "multi_task/joint_sum"]
    assert comparison.notes == ("two, mlp: delta_m needs baseline/single_task in the sweep. Found none of seed 0, 1.",)


def test_comparison_by_delta_m_leaves_the_files_alone(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.multi_task("baseline/single_task", seed=seed, accuracy=0.8 + 0.01 * seed, rmse=2.0)
        sweep.multi_task("multi_task/joint_sum", seed=seed, accuracy=0.84 + 0.011 * seed, rmse=1.8)
    table = compare(sweep.folder).tables[0]
    row = table.rows[0]
    assert (table.metric, table.reference, row.strategy) == ("delta_m", "baseline/single_task", "multi_task/joint_sum")
    assert row.difference.estimate == pytest.approx(row.mean)
    assert row.verdict == "better"
    assert "test/delta_m" not in RunRecord.read(sweep.folder / "1").metrics


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "cnn"}, "model is mlp, not cnn"),
        ({"config": {"training": {"epochs": 60, "batch_size": 32}}}, "training.epochs is 30, not 60"),
        ({"fingerprints": {"development": "d", "test": "u"}}, "the split differs"),
    ],
)
def test_incomparable_baselines_are_refused(sweep, changes, message) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0)
    sweep.multi_task("multi_task/joint_sum", accuracy=0.84, rmse=1.8, **changes)
    with pytest.raises(IncomparableBaselineError, match=message):
        compare(sweep.folder)
    with pytest.raises(IncomparableBaselineError, match=message):
        add_delta_m(read_sweep(sweep.folder).records)


def test_a_failed_baseline_is_no_error(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0)
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=2.0, model="cnn", status="failed", error="E: x")
    sweep.multi_task("multi_task/joint_sum", accuracy=0.84, rmse=1.8, model="cnn")
    assert "test/delta_m" not in _added(sweep)["2"]


def test_learning_rates_have_a_baseline_each(sweep) -> None:
    for lr, baseline in ((0.1, 0.8), (0.01, 0.4)):
        config = {"training": {"epochs": 30, "batch_size": 32, "lr": lr}}
        sweep.multi_task("baseline/single_task", accuracy=baseline, rmse=1.0, config=config)
        sweep.multi_task("multi_task/joint_sum", accuracy=0.8, rmse=1.0, config=config)
    added = _added(sweep)
    assert added["1"]["test/delta_m"] == pytest.approx(0.0)
    assert added["3"]["test/delta_m"] == pytest.approx(50.0)


def test_layer_sharing_has_the_same_single_task_networks(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=1.0, config={"model": {"sharing": "hard"}})
    sweep.multi_task("multi_task/joint_sum", accuracy=0.88, rmse=1.0, config={"model": {"sharing": "mmoe"}})
    assert _added(sweep)["1"]["test/delta_m"] == pytest.approx(5.0)


def test_missing_scores_and_zero_baselines_are_said(sweep) -> None:
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=0.0)
    sweep.multi_task("multi_task/joint_sum", accuracy=0.88, rmse=1.0)
    sweep.multi_task("multi_task/upgrad", accuracy=0.88, rmse=1.0, metrics={"test/b/rmse": 1.0})
    completion = add_delta_m(read_sweep(sweep.folder).records)
    added = {folder.name: values for folder, values in completion.added.items()}
    assert added["1"]["test/delta_m"] == pytest.approx(10.0)
    assert "test/delta_m" not in added["2"]
    assert completion.notes == (
        "multi_task/joint_sum seed 0: delta_m leaves out b, whose baseline is 0.",
        "multi_task/upgrad seed 0: delta_m is unknown, no test score of a.",
    )


def test_a_baseline_that_is_too_good_is_told_with_both_values(sweep) -> None:
    near = {"test/a/accuracy": 0.8, "test/b/rmse": 0.01, "test/b/r2": 0.9999}  # 1 % of the mean's error
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=0.01, metrics=near)
    sweep.multi_task("multi_task/joint_sum", accuracy=0.88, rmse=0.03)
    with pytest.warns(UnstableBaselineWarning, match=r"error of b, below 5 %.*-95.000 with it, 10.000 without"):
        completion = add_delta_m(read_sweep(sweep.folder).records)
    assert any("-95.000 with it" in note for note in completion.notes)
    added = {folder.name: values for folder, values in completion.added.items()}
    assert added["1"]["test/delta_m"] == pytest.approx(-95.0)


def test_a_baseline_of_a_tenth_is_stable(sweep) -> None:
    far = {"test/a/accuracy": 0.8, "test/b/rmse": 0.1, "test/b/r2": 0.99}
    sweep.multi_task("baseline/single_task", accuracy=0.8, rmse=0.1, metrics=far)
    sweep.multi_task("multi_task/joint_sum", accuracy=0.88, rmse=0.3)
    assert add_delta_m(read_sweep(sweep.folder).records).notes == ()
