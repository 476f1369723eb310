from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.trajectory import EPOCH, EPOCHS, equal, golden_snapshots, training_context, weights_at
from transfuse.strategy.weight_fusion import EMA, merge
from transfuse.types import HyperparameterError


def test_golden_recursion() -> None:
    states, arrays = golden_snapshots()
    merged = merge(states, method="ema", decay=0.9)
    for key in (key for key in merged if "running" not in key and "num_batches" not in key):
        np.testing.assert_allclose(merged[key], arrays[f"out_ema09.{key}"], rtol=1e-6, atol=1e-6)


def test_decay_zero_is_the_last_snapshot() -> None:
    states = [{"w": torch.randn(50, generator=torch.Generator().manual_seed(seed))} for seed in range(4)]
    assert torch.equal(merge(states, method="ema", decay=0.0)["w"], states[-1]["w"])


def test_small_steps_of_a_long_memory_are_not_lost() -> None:
    # each step is a tenth of the last digit of a float32 near 1
    states = [{"w": torch.ones(1)}, *[{"w": torch.full((1,), 1 + 1e-5)}] * 1000]
    expected = 1 + 1e-5 * (1 - 0.999**1000)
    assert merge(states, method="ema")["w"].item() == pytest.approx(expected, rel=0, abs=1e-7)


def test_shares_are_those_of_the_recursion() -> None:
    shares = EMA(decay=0.8).coefficients(6)
    unit = [{"w": torch.eye(6, dtype=torch.float64)[index]} for index in range(6)]
    assert merge(unit, method="ema", decay=0.8)["w"].tolist() == pytest.approx(list(shares))
    assert sum(shares) == pytest.approx(1.0)


@pytest.mark.parametrize(("every_steps", "first"), [(1, 1), (5, 4)])
def test_a_run_follows_the_recursion_step_by_step(tmp_path: Path, every_steps: int, first: int) -> None:
    context = training_context(tmp_path)
    fused = EMA(decay=0.8, every_steps=every_steps).apply(context)
    steps = list(range(first, EPOCH * EPOCHS + 1, every_steps))
    assert steps[-1] == EPOCH * EPOCHS == fused.steps and fused.diagnostics["snapshots"] == len(steps)
    merged = merge(weights_at(context, steps), method="ema", decay=0.8)
    torch.testing.assert_close(dict(fused.network.state_dict()), merged, rtol=1e-6, atol=1e-7)


def test_a_run_with_decay_zero_ends_in_the_last_weights(tmp_path: Path) -> None:
    context = training_context(tmp_path, batch_norm=True)
    fused = EMA(decay=0.0).apply(context)
    assert equal(dict(fused.network.state_dict()), weights_at(context, [EPOCH * EPOCHS])[0])
    assert fused.diagnostics["batch_norm"] == "none" and fused.diagnostics["verdict"] is None
    assert fused.validation == fused.diagnostics["last_weights"]


def test_a_memory_longer_than_the_training_is_told(tmp_path: Path) -> None:
    fused = EMA().apply(training_context(tmp_path))
    average, last = fused.validation["sign"]["nll"], fused.diagnostics["last_weights"]["sign"]["nll"]
    assert average > last
    assert fused.diagnostics["verdict"] == (
        f"the average is worse than the last weights (nll {average:.3g} against {last:.3g}). The first snapshot has a "
        f"share of {0.999**23:.2g} of the average: should `decay` be smaller? Found `decay = 0.999`."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay": 1.0}, r"`decay` should be in \[0, 1\). Found `decay = 1.0`"),
        ({"decay": -0.1}, r"`decay` should be in \[0, 1\). Found `decay = -0.1`"),
        ({"decay": float("nan")}, r"`decay` should be in \[0, 1\). Found `decay = nan`"),
        ({"every_steps": 0}, "`every_steps` should be >= 1. Found `every_steps = 0`"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        EMA(**fields)  # type: ignore[arg-type]
