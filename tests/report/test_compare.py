from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy import stats

from transfuse.evidence import holm, paired_difference
from transfuse.metrics import per_example
from transfuse.report import Row, compare
from transfuse.tracking.record import RunRecord
from transfuse.types import HyperparameterError, Task

TASK = Task(name="y", kind="classification", outputs=3)


def _row(rows, strategy: str) -> Row:
    return next(row for row in rows if row.strategy == strategy)


def test_difference_counts_seeds_and_shared_examples(sweep) -> None:
    jobs = {
        (strategy, seed): sweep.run(strategy, seed=seed, skill=skill)
        for seed in (0, 1, 2)
        for strategy, skill in (("baseline/best_single", 1.0), ("output_fusion/average", 1.3))
    }
    losses = {}
    for key, job in jobs.items():
        stored = load_file(job / "predictions.safetensors")
        losses[key] = per_example(TASK, stored["y/outputs"], stored["y/labels"], "nll").numpy()
    differences_SN = np.stack(
        [losses["output_fusion/average", seed] - losses["baseline/best_single", seed] for seed in (0, 1, 2)]
    )
    expected = paired_difference(differences_SN.mean(axis=1), differences_SN)

    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert row.shared_test
    assert row.difference.estimate == pytest.approx(expected.estimate)
    assert (row.difference.low, row.difference.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    assert row.verdict == "better"
    assert (table.metric, table.beside, table.reference) == ("nll", "accuracy", "baseline/best_single")
    assert [found.strategy for found in table.rows] == ["output_fusion/average", "baseline/best_single"]


def test_examples_are_matched_by_id(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("output_fusion/average", seed=seed, skill=1.3)
    before = compare(sweep.folder).tables[0].rows[0].difference
    path = sweep.folder / "1" / "predictions.safetensors"
    order = torch.randperm(sweep.num_examples, generator=torch.Generator().manual_seed(0))
    save_file({name: tensor[order] for name, tensor in load_file(path).items()}, path)
    after = compare(sweep.folder).tables[0].rows[0].difference
    assert after.low == pytest.approx(before.low)


def test_own_test_sets_leave_the_paired_t_test(sweep) -> None:
    for seed in range(4):
        sweep.run("baseline/best_single", seed=seed, shared_test=False)
        sweep.run("output_fusion/average", seed=seed, skill=1.2, shared_test=False)
    nll = [RunRecord.read(sweep.folder / str(job)).metrics["test/nll"] for job in range(8)]
    expected = stats.ttest_rel(nll[1::2], nll[::2])
    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert not row.shared_test
    assert row.difference.p_value == pytest.approx(expected.pvalue)
    assert row.mean == pytest.approx(np.mean(nll[1::2]))
    assert row.sd == pytest.approx(np.std(nll[1::2], ddof=1))
    assert "intervals count the chance of seeds alone: each seed has a test set of its own." in table.notes


def test_rmse_is_no_mean_over_examples(sweep) -> None:
    problem = {"kind": "single_task", "tasks": [{"name": "y", "kind": "regression"}], "selection_metric": "rmse"}
    for seed, (single, fused) in enumerate([(2.0, 1.8), (2.2, 1.9), (2.1, 1.85)]):
        sweep.run("baseline/best_single", seed=seed, problem=problem, metrics={"test/rmse": single, "test/r2": 0.5})
        sweep.run("output_fusion/average", seed=seed, problem=problem, metrics={"test/rmse": fused, "test/r2": 0.6})
    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert (table.metric, table.beside, row.shared_test) == ("rmse", "r2", False)
    assert row.difference.estimate == pytest.approx(-0.25)
    assert row.difference.p_value == pytest.approx(stats.ttest_rel([1.8, 1.9, 1.85], [2.0, 2.2, 2.1]).pvalue)
    assert any("rmse is not a mean over test examples" in note for note in table.notes)


def test_members_count_by_their_mean_loss(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("baseline/mean_single", seed=seed, members=3, skill=0.8)
    differences_SN = []
    for seed in (0, 1, 2):
        mine = load_file(sweep.folder / str(2 * seed + 1) / "predictions.safetensors")
        theirs = load_file(sweep.folder / str(2 * seed) / "predictions.safetensors")
        assert mine["y/outputs"].shape == (3, 60, 3)
        members = [per_example(TASK, outputs_NC, mine["y/labels"], "nll").numpy() for outputs_NC in mine["y/outputs"]]
        reference = per_example(TASK, theirs["y/outputs"], theirs["y/labels"], "nll").numpy()
        differences_SN.append(np.mean(members, axis=0) - reference)
    expected = paired_difference(np.mean(differences_SN, axis=1), np.stack(differences_SN))
    row = _row(compare(sweep.folder).rows, "baseline/mean_single")
    assert (row.difference.low, row.difference.high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_holm_over_the_strategies(sweep) -> None:
    skills = {"baseline/best_single": 1.0, "output_fusion/average": 1.06, "output_fusion/median": 1.03, "z/z": 0.97}
    for seed in (0, 1, 2):
        for strategy, skill in skills.items():
            sweep.run(strategy, seed=seed, skill=skill)
    rows = [row for row in compare(sweep.folder).rows if row.difference is not None]
    assert len(rows) == 3
    assert [row.p_holm for row in rows] == pytest.approx(holm([row.difference.p_value for row in rows]))
    assert any(row.p_holm > row.difference.p_value for row in rows)


def test_missing_predictions_leave_the_seeds(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("output_fusion/average", seed=seed, skill=1.3)
    (sweep.folder / "3" / "predictions.safetensors").unlink()
    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert not row.shared_test
    assert row.difference.degrees == pytest.approx(2)
    assert "intervals count the chance of seeds alone where predictions are missing." in table.notes


def test_one_seed_never_wins(sweep) -> None:
    sweep.run("baseline/best_single", skill=0.1)
    sweep.run("output_fusion/average", skill=4.0)
    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert row.difference.high < 0
    assert row.verdict == "inconclusive"
    assert math.isnan(row.sd)
    assert any(note.startswith("one seed:") for note in table.notes)
    assert "intervals count the chance of test examples alone." in table.notes


def test_without_the_reference_there_are_no_differences(sweep) -> None:
    for seed in (0, 1):
        sweep.run("output_fusion/average", seed=seed)
    comparison = compare(sweep.folder)
    assert comparison.reference is None
    assert [(row.difference, row.verdict) for row in comparison.rows] == [(None, None)]
    assert comparison.tables[0].notes == (
        "no differences and no verdicts: baseline/best_single has no result in this sweep.",
    )


def test_another_test_set_is_not_paired(sweep) -> None:
    for seed in (0, 1):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("output_fusion/average", seed=seed, fingerprints={"test": "other"})
    row = _row(compare(sweep.folder).rows, "output_fusion/average")
    assert (row.difference, row.pairs) == (None, 0)


def test_pairs_are_the_seeds_that_both_have(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
    for seed in (1, 2, 3):
        sweep.run("output_fusion/average", seed=seed)
    table = compare(sweep.folder).tables[0]
    row = _row(table.rows, "output_fusion/average")
    assert (row.seeds, row.pairs, table.seeds) == ((1, 2, 3), 2, (0, 1, 2, 3))
    assert "output_fusion/average: 3 of 4 seeds have a result." in table.notes


def test_a_score_that_is_not_a_number_does_not_count(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        metrics = {"metrics": {"test/nll": math.nan, "test/accuracy": 0.1}} if seed == 2 else {}
        sweep.run("output_fusion/average", seed=seed, **metrics)
    table = compare(sweep.folder).tables[0]
    assert _row(table.rows, "output_fusion/average").seeds == (0, 1)
    assert "output_fusion/average seed 2: test/nll is not a number; the run does not count." in table.notes


def test_transfer_is_measured_by_scratch(sweep) -> None:
    problem = {
        "kind": "transfer",
        "tasks": [{"name": "y", "kind": "classification"}],
        "selection_metric": "accuracy",
    }
    for seed in (0, 1, 2):
        sweep.run("baseline/scratch", seed=seed, problem=problem)
        sweep.run("parameter_transfer/full_finetune", seed=seed, problem=problem, skill=2.0)
    table = compare(sweep.folder).tables[0]
    assert (table.reference, table.metric, table.higher_is_better) == ("baseline/scratch", "accuracy", True)
    assert (table.beside, table.beside_higher_is_better) == ("nll", False)
    assert [row.strategy for row in table.rows] == ["parameter_transfer/full_finetune", "baseline/scratch"]
    assert [row.verdict for row in table.rows] == ["better", "reference"]


def test_level_widens_intervals_and_tightens_verdicts(sweep) -> None:
    for seed in (0, 1, 2):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("output_fusion/average", seed=seed, skill=1.1)
    narrow, wide = (
        _row(compare(sweep.folder, level=level).rows, "output_fusion/average").difference for level in (0.9, 0.99)
    )
    assert wide.half_width > narrow.half_width
    with pytest.raises(HyperparameterError, match="level"):
        compare(sweep.folder, level=1.5)


def test_cost_is_the_mean_over_seeds(sweep) -> None:
    for seed, seconds in enumerate((1.0, 2.0, 6.0)):
        sweep.run("output_fusion/average", seed=seed, cost={"fuse_seconds": seconds, "parameters": 10})
    row = compare(sweep.folder).rows[0]
    assert row.cost == {"fuse_seconds": pytest.approx(3.0), "parameters": 10}
    assert row.budget == {"epochs": 30, "steps_taken": 570, "trials": 1, "validation_looks": 5}
