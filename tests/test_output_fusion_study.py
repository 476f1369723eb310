"""Output fusion on real data: inequalities that hold by construction, or on every split that was ever looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.sweep.commands import start
from transfuse.data import FashionMnist
from transfuse.tracking.record import RunRecord
from transfuse.types import DataError

pytestmark = pytest.mark.slow
SEEDS = range(5)


def sweep(folder: Path, line: str) -> Path:
    """The folder of a finished sweep over five seeds."""
    command = start(f"-m {line} seed=0,1,2,3,4 tracking=off trainer.progress=false paths.outputs={folder}", cwd=folder)
    assert command.end(600) == 0, command.output.read_text()
    (found,) = (path.parent for path in folder.glob("sweeps/*/*/report"))
    return found


def values(folder: Path, metric: str) -> dict[str, np.ndarray]:
    """Strategy -> (S,) values of a metric, by seed; runs with settings of their own are told apart by them."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("*/record.json")):
        record = RunRecord.read(path.parent)
        prior = record.config["strategy"].get("prior")
        name = f"{record.strategy}:{prior}" if prior else record.strategy
        if metric in record.metrics:
            found.setdefault(name, {})[record.seed] = record.metrics[metric]
    return {name: np.array([by_seed[seed] for seed in SEEDS]) for name, by_seed in found.items()}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    strategies = "best_single,baseline/mean_single,output_fusion/average,output_fusion/logit_average"
    fitted = "output_fusion/weighted_average,output_fusion/greedy_selection"
    return sweep(
        tmp_path_factory.mktemp("digits"),
        f"experiment=output_fusion_study strategy=baseline/{strategies},{fitted}",
    )


def test_optimal_weights_are_at_least_as_good_in_sample_as_greedy_ones_and_the_best_member(digits: Path) -> None:
    fit = values(digits, "fit/nll")
    optimal, greedy = fit["output_fusion/weighted_average"], fit["output_fusion/greedy_selection"]
    assert (optimal <= greedy + 1e-8).all()
    assert (greedy <= fit["baseline/best_single"] + 1e-8).all()


def test_averages_beat_the_mean_member(digits: Path) -> None:
    test = values(digits, "test/nll")
    for name in ("average", "logit_average"):
        assert (test[f"output_fusion/{name}"] <= test["baseline/mean_single"]).all()


def test_networks_from_scratch_disagree_a_little(digits: Path) -> None:
    found = []
    for path in digits.glob("*/analysis/summary.json"):
        if RunRecord.read(path.parents[1]).strategy == "output_fusion/average":
            (task,) = json.loads(path.read_text()).values()
            found.append(task["disagreement"])
    assert len(found) == len(SEEDS)
    assert 0.015 < np.mean(found) < 0.06


def test_stacking_needs_the_average_as_its_prior(tmp_path: Path) -> None:
    line = "experiment=output_fusion_study strategy=output_fusion/stacking strategy.prior=average,zero"
    test = values(sweep(tmp_path, line), "test/nll")
    assert test["output_fusion/stacking:average"].mean() < test["output_fusion/stacking:zero"].mean()


def test_on_unequal_members_the_average_loses_to_optimal_weights(tmp_path: Path) -> None:
    try:
        FashionMnist().build(seed=0, folder=tmp_path)
    except DataError as error:
        pytest.skip(str(error))
    line = "experiment=output_fusion_study_fashion strategy=output_fusion/average,output_fusion/weighted_average"
    test = values(sweep(tmp_path, line), "test/nll")
    assert (test["output_fusion/weighted_average"] < test["output_fusion/average"]).all()
