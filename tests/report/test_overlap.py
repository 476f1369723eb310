"""Seeds that split the same data anew: their test sets overlap, and the notes say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from transfuse.report import compare, read_sweep
from transfuse.report.contests import contests
from transfuse.report.overlap import common_test_share

STRATEGIES = ("baseline/best_single", "output_fusion/average")


def _with_ids(job: Path, ids: torch.Tensor) -> None:
    path = job / "predictions.safetensors"
    tensors = {name: values.clone() for name, values in load_file(path).items()}
    save_file({**tensors, "ids": ids}, path)


def _build(sweep, starts: tuple[int, ...], shared_test: bool = False) -> None:
    for seed, start in enumerate(starts):
        for strategy in STRATEGIES:
            job = sweep.run(strategy, seed=seed, shared_test=shared_test)
            _with_ids(job, torch.arange(start, start + sweep.num_examples))


def _share(sweep) -> float:
    (contest,) = contests(read_sweep(sweep.folder).records)
    return common_test_share(contest.entries)


def test_the_mean_share_over_pairs_of_seeds(sweep) -> None:
    _build(sweep, (0, 30, 60))  # 60 examples each: pairs share 30, 30 and 0
    assert _share(sweep) == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    (note,) = [note for note in compare(sweep.folder).tables[0].notes if "Nadeau and Bengio, 2003" in note]
    assert "two test sets share 33.3 % of their examples" in note and "too narrow" in note


@pytest.mark.parametrize(("starts", "shared"), [((0, 0), True), ((0, 60), False), ((0,), False)])
def test_one_test_set_or_disjoint_ones_need_no_note(sweep, starts: tuple[int, ...], shared: bool) -> None:
    _build(sweep, starts, shared_test=shared)
    assert _share(sweep) == 0
    assert not any("Nadeau" in note for note in compare(sweep.folder).tables[0].notes)


def test_missing_predictions_are_no_overlap(sweep) -> None:
    _build(sweep, (0, 30))
    for path in sweep.folder.glob("*/predictions.safetensors"):
        path.write_bytes(b"")
    assert _share(sweep) == 0
