"""Grids of settings of which each strategy takes its best on validation data."""

from __future__ import annotations

from typing import Any

import pytest

from transfuse.report import add_delta_m, compare
from transfuse.report.contests import contests
from transfuse.report.picked import pick
from transfuse.report.sweeps import read_sweep


def config(lr: float, **others: Any) -> dict[str, Any]:
    training = {"epochs": 30, "batch_size": 32, "lr": lr, **others}
    return {"training": training, "evaluation": {"tuned": ["training.lr"]}}


def grid(sweep, strategy: str, validation: dict[float, float], *, seed: int = 0, **test: float) -> None:
    """One run a learning rate; test scores are the better the worse validation is."""
    for lr, accuracy in validation.items():
        metrics = {
            "validation/a/accuracy": accuracy,
            "validation/b/rmse": 1.0,
            "test/a/accuracy": 1.0 - accuracy / 2,
            "test/b/rmse": 1.0,
            "test/a/nll": 1.0,
            **test,
        }
        sweep.multi_task(strategy, seed=seed, accuracy=0.0, rmse=1.0, config=config(lr), metrics=metrics)


def test_the_best_on_validation_counts_whatever_the_test_says(sweep) -> None:
    grid(sweep, "baseline/single_task", {0.1: 0.5, 0.01: 0.8})
    grid(sweep, "multi_task/joint_sum", {0.1: 0.9, 0.01: 0.4})
    records = read_sweep(sweep.folder).records
    picked = pick(records)
    assert [folder.name for folder in picked.records] == ["1", "2"]
    assert picked.notes == (
        "training.lr: each strategy takes its best of 2 runs on validation data, seed by seed; 2 of 4 runs count, and "
        "costs are theirs alone.",
    )
    (contest,) = contests(records)
    assert [entry.label for entry in contest.entries] == ["baseline/single_task", "multi_task/joint_sum"]
    assert picked.notes[0] in contest.notes
    added = {folder.name: values for folder, values in add_delta_m(records).added.items()}
    # 0.55 against 0.6: each at its own rate
    assert added["2"]["test/delta_m"] == pytest.approx(100 * (0.55 / 0.6 - 1) / 2)
    assert set(added) == {"1", "2"}


def test_the_choice_is_made_for_each_seed(sweep) -> None:
    for seed, better in ((0, 0.1), (1, 0.01)):
        grid(sweep, "baseline/single_task", {0.1: 0.7, 0.01: 0.6}, seed=seed)
        grid(sweep, "multi_task/upgrad", {0.1: 0.9 if better == 0.1 else 0.5, 0.01: 0.7}, seed=seed)
    table = compare(sweep.folder).tables[0]
    assert {row.strategy: row.seeds for row in table.rows} == {
        "baseline/single_task": (0, 1),
        "multi_task/upgrad": (0, 1),
    }
    row = next(row for row in table.rows if row.strategy == "multi_task/upgrad")
    assert row.pairs == 2


def test_one_task_is_picked_by_the_selection_metric(sweep) -> None:
    for lr, nll in ((0.1, 0.4), (0.01, 0.2), (0.001, 0.3)):
        folder = sweep.run("output_fusion/average", config=config(lr))
        record = read_sweep(sweep.folder).records[folder]
        record.metrics["validation/nll"] = nll  # type: ignore[index]
        record.write(folder)
    assert [folder.name for folder in pick(read_sweep(sweep.folder).records).records] == ["1"]


def test_other_settings_make_other_grids(sweep) -> None:
    for epochs in (10, 20):
        for lr, accuracy in ((0.1, 0.5), (0.01, 0.8)):
            metrics = {"validation/a/accuracy": accuracy, "validation/b/rmse": 1.0, "test/a/accuracy": 0.5,
                       "test/b/rmse": 1.0}  # fmt: skip
            sweep.multi_task(
                "multi_task/joint_sum", accuracy=0.5, rmse=1.0, config=config(lr, epochs=epochs), metrics=metrics
            )
    assert [folder.name for folder in pick(read_sweep(sweep.folder).records).records] == ["1", "3"]


def test_without_tuned_settings_every_run_counts(sweep) -> None:
    for lr in (0.1, 0.01):
        sweep.multi_task("multi_task/joint_sum", accuracy=0.5, rmse=1.0, config={"training": {"lr": lr}})
    picked = pick(read_sweep(sweep.folder).records)
    assert len(picked.records) == 2 and not picked.notes
