from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from transfuse.training.averaging import (
    ExponentialMean,
    Kept,
    Moments,
    RunningMean,
    Snapshots,
    averaged_state,
    current_values,
    on_device,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "weight_fusion"


def trajectory(name: str) -> tuple[list[dict[str, torch.Tensor]], dict[str, np.ndarray]]:
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    return [
        {
            key.removeprefix(f"in_t{step}."): torch.from_numpy(value)
            for key, value in arrays.items()
            if key.startswith(f"in_t{step}.") and "running" not in key and "num_batches" not in key
        }
        for step in range(5)
    ], arrays


@pytest.mark.parametrize(
    ("total", "stride", "first", "expected"),
    [
        (12, 3, 9.0, [9, 12]),  # a step exactly at the start counts
        (12, 3, 9.1, [12]),
        (10, 4, 0.0, [2, 6, 10]),
        (10, 1, 8, [8, 9, 10]),
        (2, 5, 0.0, [2]),
    ],
)
def test_snapshots_are_counted_back_from_the_end(total: int, stride: int, first: float, expected: list[int]) -> None:
    snapshots = Snapshots(total=total, stride=stride, first=first)
    assert [step for step in range(1, total + 1) if snapshots.due(step)] == expected
    assert snapshots.count == len(expected)


@pytest.mark.parametrize(("average", "name"), [(RunningMean(), "swa"), (ExponentialMean(decay=0.9), "ema09")])
def test_golden_averages(average: RunningMean | ExponentialMean, name: str) -> None:
    states, arrays = trajectory("torch_swa_ema_updatebn")
    kept: Kept = {}
    for state in states:
        average.update(kept, state)
    assert kept["count"] == 5 and set(kept["mean"]) == set(states[0])
    for key, value in kept["mean"].items():
        np.testing.assert_allclose(value.numpy(), arrays[f"out_{name}.{key}"], rtol=1e-6, atol=1e-6)


def test_golden_moments() -> None:
    states, arrays = trajectory("swag_moments")
    kept: Kept = {}
    for state in states:
        Moments(rank=3).update(kept, state)
    assert kept["count"] == arrays["out_n_models"].item() and len(kept["deviations"]) == 3
    for key, mean in kept["mean"].items():
        np.testing.assert_allclose(mean, arrays[f"out_base.{key}_mean"], rtol=1e-6, atol=1e-6)
        squares = kept["spread"][key] / 5 + mean.square()
        np.testing.assert_allclose(squares, arrays[f"out_base.{key}_sq_mean"], rtol=1e-6, atol=1e-6)
        rows = torch.stack([deviation[key].reshape(-1) for deviation in kept["deviations"]])
        np.testing.assert_allclose(rows, arrays[f"out_base.{key}_cov_mat_sqrt"], rtol=1e-6, atol=1e-6)


def test_small_spread_around_a_large_mean_is_not_lost() -> None:
    stream = np.random.default_rng(0)
    values = (100 + 1e-2 * stream.normal(size=(50, 20))).astype(np.float32)
    kept: Kept = {}
    for row in values:
        Moments(rank=2).update(kept, {"w": torch.from_numpy(row)})
    # in float32 the difference of squares would have errors of 1e4 * 6e-8 = 6e-4, six times the variance
    np.testing.assert_allclose(kept["spread"]["w"] / 50, values.astype(np.float64).var(0), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_thousand_updates_do_not_drift(dtype: torch.dtype) -> None:
    stream = np.random.default_rng(0)
    values = [torch.from_numpy(1 + 0.1 * stream.normal(size=100)).to(dtype) for _ in range(1000)]
    mean: Kept = {}
    recursion: Kept = {}
    expected = values[0].double()
    for value in values:
        RunningMean().update(mean, {"w": value})
        ExponentialMean(decay=0.99).update(recursion, {"w": value})
        expected = 0.99 * expected + 0.01 * value.double()
    assert mean["mean"]["w"].dtype == recursion["mean"]["w"].dtype == torch.float64
    exact = torch.stack([value.double() for value in values]).mean(0)
    torch.testing.assert_close(mean["mean"]["w"], exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(recursion["mean"]["w"], expected, rtol=1e-12, atol=0)


def test_a_snapshot_is_neither_kept_nor_changed() -> None:
    first, second = torch.ones(3), torch.zeros(3)
    kept: Kept = {}
    for value in (first, second):
        RunningMean().update(kept, {"w": value})
    assert first.tolist() == [1.0] * 3 and second.tolist() == [0.0] * 3
    first.fill_(7.0)
    assert kept["mean"]["w"].tolist() == [0.5] * 3


def test_statistics_follow_the_law_of_total_variance() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    keys = frozenset(key for key, value in network.state_dict().items() if value.is_floating_point())
    stream = torch.Generator().manual_seed(0)
    means, variances = torch.randn(4, 3, generator=stream), torch.rand(4, 3, generator=stream)
    kept: Kept = {}
    for mean, variance in zip(means, variances, strict=True):
        network[1].running_mean.copy_(mean)
        network[1].running_var.copy_(variance)
        RunningMean().update(kept, current_values(network, keys))
    state = averaged_state(kept["mean"], network.state_dict())
    assert set(state) == keys and all(state[key].dtype == torch.float32 for key in keys)
    torch.testing.assert_close(state["1.running_mean"], means.mean(0))
    torch.testing.assert_close(state["1.running_var"], variances.mean(0) + means.var(0, correction=0))
    assert torch.equal(state["0.weight"], network[0].weight)
    assert state["0.weight"].data_ptr() not in (network[0].weight.data_ptr(), kept["mean"]["0.weight"].data_ptr())


def test_only_the_keys_are_taken() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert set(current_values(network, frozenset({"0.weight"}))) == {"0.weight"}


def test_moving_to_a_device_keeps_the_structure() -> None:
    kept: Kept = {}
    for number in (1.0, 2.0):
        Moments(rank=2).update(kept, {"w": torch.tensor(number)})
    moved = on_device(kept, torch.device("meta"))
    assert moved["count"] == 2 and moved["mean"]["w"].is_meta
    assert [deviation["w"].is_meta for deviation in moved["deviations"]] == [True, True]
