"""What the report computes from stored predictions: calibration, single classes, the members' diversity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import recall_score

from transfuse.metrics import score
from transfuse.report import compare, read_sweep
from transfuse.report.calibration import calibrated, confidences
from transfuse.report.contests import Contest, contests
from transfuse.report.diversity import pool_diversity
from transfuse.report.outputs import read_ids, read_outputs
from transfuse.report.per_class import MOST, by_class, share_right
from transfuse.types import Task

LABELS = Task(name="y", kind="multilabel", outputs=2)
VALUES = Task(name="y", kind="regression", outputs=1)


def _contest(sweep) -> Contest:
    return contests(read_sweep(sweep.folder).records)[0]


@pytest.fixture
def built(sweep):
    for seed in (0, 1):
        sweep.run("baseline/best_single", seed=seed)
        sweep.run("baseline/mean_single", seed=seed, members=2, fused={"members": [0, 1]})
        sweep.run("output_fusion/average", seed=seed, skill=1.5)
        sweep.run("output_fusion/median", seed=seed, skill=1.4)
        sweep.run("weight_fusion/uniform_soup", seed=seed, skill=0.4)
    return sweep


def test_calibration_is_of_reference_best_and_other_families(built) -> None:
    contest, table = _contest(built), compare(built.folder).tables[0]
    found = calibrated(contest, table, contest.tasks[0])
    assert [entry.label for entry in found] == [
        "output_fusion/average", "output_fusion/median", "baseline/best_single", "weight_fusion/uniform_soup"
    ]  # fmt: skip
    assert [table.rows[entry.place - 1].strategy for entry in found] == [entry.label for entry in found]
    for entry in found:
        runs = [run.record for run in contest.entries if run.label == entry.label]
        assert entry.ece == pytest.approx(np.mean([record.metrics["test/ece"] for record in runs]), rel=1e-6)
        right = sum(record.metrics["test/accuracy"] for record in runs) * built.num_examples
        assert float((entry.table.counts * entry.table.accuracies).sum()) == pytest.approx(right)
        assert float(entry.table.counts.sum()) == 2 * built.num_examples


def test_confidences_are_those_of_the_metrics() -> None:
    logits_NC = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    targets_NC = (torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    targets_NC[3, 1] = math.nan
    confidence_K, right_K = confidences(LABELS, logits_NC, targets_NC)
    assert len(confidence_K) == 99
    assert float(right_K.double().mean()) == pytest.approx(1 - score(LABELS, logits_NC, targets_NC, "hamming_loss"))
    one = Task(name="y", kind="classification", outputs=2)
    confidence_K, right_K = confidences(one, torch.tensor([[0.0, math.log(3.0)], [9.0, 0.0]]), torch.tensor([1, -1]))
    assert (confidence_K.tolist(), right_K.tolist()) == (pytest.approx([0.75]), [True])


def test_shares_by_class_are_recalls(built) -> None:
    contest, table = _contest(built), compare(built.folder).tables[0]
    found = by_class(contest, table, contest.tasks[0])
    assert found is not None
    recalls = {}
    for entry in contest.entries:
        stored = load_file(entry.folder / "predictions.safetensors")
        outputs = stored["y/outputs"] if stored["y/outputs"].ndim == 3 else stored["y/outputs"][None]
        each = [recall_score(stored["y/labels"], member.argmax(1), average=None) for member in outputs]
        recalls[entry.label, entry.record.seed] = np.mean(each, axis=0)
    for place, row in enumerate(table.rows, 1):
        by_seed = [recalls[row.strategy, seed] for seed in (0, 1)]
        if row.verdict == "reference":
            assert found.shares[place] == pytest.approx(np.mean(by_seed, axis=0))
        else:
            base = [recalls["baseline/best_single", seed] for seed in (0, 1)]
            assert found.differences[place] == pytest.approx(np.mean(by_seed, axis=0) - np.mean(base, axis=0))
    assert (found.classes, found.num_classes) == ((0, 1, 2), 3)
    assert by_class(contest, table, VALUES) is None


def test_labels_and_missing_classes() -> None:
    outputs_MNC = torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[1.0, -1.0], [-1.0, -1.0]]])
    shares = share_right(LABELS, outputs_MNC, torch.tensor([[1.0, 1.0], [1.0, math.nan]]))
    assert shares.tolist() == [0.75, 0.5]
    classes = Task(name="y", kind="classification", outputs=2)
    found = share_right(classes, outputs_MNC, torch.tensor([0, -1]))
    assert found[0] == 1 and found[1].isnan()


def test_of_many_classes_the_most_different_are_shown(sweep) -> None:
    from safetensors.torch import save_file

    labels_N = torch.arange(40).repeat(2)
    for strategy, wrong in (("baseline/best_single", []), ("output_fusion/average", list(range(20, 20 + MOST)))):
        job = sweep.run(strategy)
        outputs_NC = torch.nn.functional.one_hot(labels_N, 40).float()
        outputs_NC[:, wrong] = -1.0
        save_file(
            {"y/outputs": outputs_NC, "y/labels": labels_N, "ids": torch.arange(80)}, job / "predictions.safetensors"
        )
    contest, table = _contest(sweep), compare(sweep.folder).tables[0]
    found = by_class(contest, table, contest.tasks[0])
    assert found is not None
    assert found.classes == tuple(range(20, 20 + MOST)) and found.num_classes == 40


def test_diversity_is_the_mean_over_seeds(built) -> None:
    contest = _contest(built)
    (pool,) = pool_diversity(contest, contest.tasks[0])
    differ = []
    for entry in contest.entries:
        if entry.record.strategy == "baseline/mean_single":
            stored = read_outputs(entry.folder, "y")
            assert stored is not None
            first, second = stored.outputs_MNC.argmax(2)
            differ.append(float((first != second).double().mean()))
    assert len(differ) == 2 and max(differ) > 0
    assert pool.numbers["disagreement"] == pytest.approx(np.mean(differ))
    assert float(pool.pairs_MM[0, 1]) == pytest.approx(np.mean(differ))
    assert (pool.pool, pool.members) == ("base models", ("seeds-0", "seeds-1"))


def test_pools_are_told_apart_and_nameless_members_are_numbered(sweep) -> None:
    for pool in ("seeds", "finetuned"):
        sweep.run("baseline/mean_single", members=3, config={"base_models": {"_target_": f"pkg.{pool}"}})
    contest = _contest(sweep)
    found = pool_diversity(contest, contest.tasks[0])
    assert [pool.pool for pool in found] == ["base_models=seeds", "base_models=finetuned"]
    assert found[0].members == ("member 0", "member 1", "member 2")


def test_damaged_predictions_are_missing(built) -> None:
    job = built.folder / "0"
    (job / "predictions.safetensors").write_bytes(b"nonsense")
    assert read_outputs(job, "y") is None and read_ids(job) is None
    assert read_outputs(built.folder / "1", "other") is None
