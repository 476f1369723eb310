from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from transfuse.metrics import metric_names, per_example, score, scores
from transfuse.types import PredictionError, Task

GOLDEN = Path(__file__).parents[1] / "golden" / "output_fusion" / "regression.npz"


def task(outputs: int) -> Task:
    return Task(name="y", kind="regression", outputs=outputs)


def case(num_targets: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_targets)
    targets = 10 + 3 * torch.randn(40, num_targets, generator=generator)
    return targets + torch.randn(40, num_targets, generator=generator), targets


def test_golden_values() -> None:
    golden = np.load(GOLDEN)
    values = golden["out_ls_simplex_weights"] @ golden["in_preds"]
    found = scores(task(1), torch.tensor(values)[:, None], torch.tensor(golden["in_y"])[:, None])
    assert tuple(found) == metric_names("regression")
    for name, value in found.items():
        assert value == pytest.approx(float(golden[f"out_{name}"]), abs=1e-8), name


@pytest.mark.parametrize("num_targets", [1, 2, 5])
def test_equals_scikit_learn(num_targets: int) -> None:
    values, targets = case(num_targets)
    found = scores(task(num_targets), values, targets)
    y, f = targets.double().numpy(), values.double().numpy()
    assert found["rmse"] == pytest.approx(np.sqrt(sklearn_metrics.mean_squared_error(y, f)), abs=1e-12)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, f), abs=1e-12)
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(y, f), abs=1e-12)


def test_closed_forms() -> None:
    targets = torch.tensor([[1.0], [3.0]])
    assert scores(task(1), targets, targets) == {"rmse": 0, "mae": 0, "r2": 1}
    assert scores(task(1), torch.full((2, 1), 2.0), targets) == {"rmse": 1, "mae": 1, "r2": 0}


def test_r2_of_a_constant_target_is_left_out() -> None:
    values = torch.tensor([[1.0], [3.0]])
    assert set(scores(task(1), values, torch.full((2, 1), 2.0))) == {"rmse", "mae"}


def test_r2_leaves_out_the_constant_one_of_two_targets() -> None:
    values = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    targets = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert scores(task(2), values, targets)["r2"] == pytest.approx(0.5)  # 1 - 1 / 2


@pytest.mark.parametrize(("metric", "power"), [("rmse", 2), ("mae", 1)])
def test_per_example_means_give_the_scores(metric: str, power: int) -> None:
    values, targets = case(3)
    errors = per_example(task(3), values, targets, metric)
    assert errors.shape == (40,)
    assert float(errors.mean()) == pytest.approx(score(task(3), values, targets, metric) ** power, abs=1e-12)


def test_unlabelled_targets_take_no_part() -> None:
    values, targets = case(2)
    targets[:10, 1] = torch.nan
    targets[3] = torch.nan
    found = scores(task(2), values, targets)
    columns = [(targets[:, c].double().numpy(), values[:, c].double().numpy()) for c in range(2)]
    columns = [(y[~np.isnan(y)], f[~np.isnan(y)]) for y, f in columns]
    assert found["r2"] == pytest.approx(np.mean([sklearn_metrics.r2_score(y, f) for y, f in columns]), abs=1e-12)
    errors = np.concatenate([f - y for y, f in columns])
    assert found["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-12)
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), abs=1e-12)
    assert per_example(task(2), values, targets, "mae").isnan().nonzero().flatten().tolist() == [3]


def test_targets_of_another_shape_are_not_broadcast() -> None:
    with pytest.raises(PredictionError, match=r"Found \(4, 1\) and \(4,\)"):
        scores(task(1), torch.zeros(4, 1), torch.zeros(4))
