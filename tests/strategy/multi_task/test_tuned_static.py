from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask, Seeds
from transfuse.metrics import DELTA_M_METRICS, delta_m
from transfuse.strategy.base import Context
from transfuse.strategy.multi_task import JointSum, TunedStaticWeights
from transfuse.strategy.multi_task.tuned_static import spread
from transfuse.types import HyperparameterError

TASKS = (SIGN, VALUE)


def context(folder: Path, *, per_task: bool = True) -> Context:
    return make_context(make_setting(make_development(*TASKS)), PerTask() if per_task else Seeds(count=1), folder)


def chosen_metrics(scores: Any) -> dict[str, dict[str, float]]:
    return {task.name: {name: scores[task.name][name] for name in DELTA_M_METRICS[task.kind]} for task in TASKS}


def test_the_trial_with_the_best_delta_m_is_taken(tmp_path: Path) -> None:
    where = context(tmp_path)
    fused = TunedStaticWeights(num_trials=4).apply(where)
    single = chosen_metrics({name: each for model in where.base_models for name, each in model.validation.items()})
    trials = fused.diagnostics["trials"]
    found = [delta_m(chosen_metrics(row["validation"]), single) for row in trials]
    assert fused.diagnostics["taken"] == int(np.argmax(found))
    assert fused.fit == trials[fused.diagnostics["taken"]]["validation"]
    assert fused.looks >= 4
    assert fused.steps == 4 * JointSum().apply(where).steps


def test_the_first_trial_is_the_plain_sum(tmp_path: Path) -> None:
    where = context(tmp_path)
    fused = TunedStaticWeights(num_trials=1).apply(where)
    expected = JointSum().apply(where)
    assert fused.network is not None
    assert expected.network is not None
    for key, value in expected.network.state_dict().items():
        np.testing.assert_allclose(fused.network.state_dict()[key], value, atol=1e-6)


@pytest.mark.parametrize("search", ["halton", "optuna"])
def test_without_single_task_networks_the_mean_rank_decides(tmp_path: Path, search: str) -> None:
    fused = TunedStaticWeights(num_trials=3, search=search).apply(context(tmp_path, per_task=False))
    trials = [chosen_metrics(row["validation"]) for row in fused.diagnostics["trials"]]
    accuracies = np.array([trial["sign"]["accuracy"] for trial in trials])
    errors = np.array([trial["value"]["rmse"] for trial in trials])
    ranks = stats.rankdata(-accuracies) + stats.rankdata(errors)
    assert ranks[fused.diagnostics["taken"]] == ranks.min()


def test_shorter_trials_are_followed_by_a_full_training(tmp_path: Path) -> None:
    where = context(tmp_path)
    fused, full = TunedStaticWeights(num_trials=2, shorter_budget=0.5).apply(where), JointSum().apply(where)
    assert fused.steps == 2 * full.steps // 2 + full.steps
    assert len(fused.history) == len(full.history)
    assert not fused.fit


def test_positions_begin_in_the_middle_and_fill_the_cube() -> None:
    positions = np.array(spread(65, 3, seed=0))
    assert (positions[0] == 0).all()
    assert (np.abs(positions) <= 1).all()
    assert (np.abs(positions[1:].mean(0)) < 0.1).all()
    assert positions[1:].min() < -0.9
    assert positions[1:].max() > 0.9


@pytest.mark.parametrize(
    "given", [{"num_trials": 0}, {"low": 0.0}, {"low": 2.0, "high": 1.0}, {"search": "grid"}, {"shorter_budget": 0.0}]
)
def test_bad_values_are_told(given: dict[str, Any]) -> None:
    with pytest.raises(HyperparameterError, match=f"`{next(iter(given))}` should be"):
        TunedStaticWeights(**given)
