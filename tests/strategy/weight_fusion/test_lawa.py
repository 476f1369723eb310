from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.trajectory import EPOCH, EPOCHS, equal, training_context, weights_at
from transfuse.strategy.weight_fusion import LAWA, merge
from transfuse.types import HyperparameterError, NonFiniteError, StateDictError


def snapshots(count: int) -> list[dict[str, torch.Tensor]]:
    stream = np.random.default_rng(0)
    return [{"w": torch.from_numpy(stream.normal(size=30))} for _ in range(count)]


@pytest.mark.parametrize(("last", "used"), [(1, 1), (3, 3), (7, 7), (9, 7)])
def test_the_mean_of_the_last_snapshots(last: int, used: int) -> None:
    states = snapshots(7)
    expected = torch.stack([state["w"] for state in states[-used:]]).mean(0)
    torch.testing.assert_close(merge(states, method="lawa", last=last)["w"], expected, rtol=1e-12, atol=1e-15)
    shares = LAWA(last=last).coefficients(7)
    assert len(shares) == 7 and shares[:-used] == (0.0,) * (7 - used) and shares[-used:] == (1 / used,) * used


def test_one_snapshot_is_the_last_bit_for_bit() -> None:
    states = snapshots(4)
    assert torch.equal(merge(states, method="lawa", last=1)["w"], states[-1]["w"])


def test_earlier_snapshots_are_not_read() -> None:
    states = snapshots(4)
    states[0] = {"w": torch.full((30,), torch.nan)}
    assert merge(states, method="lawa", last=3)["w"].isfinite().all()
    with pytest.raises(NonFiniteError, match="`w` of model 0 has 30 of 30 values"):
        merge(states, method="lawa", last=4)
    states[2] = {"w": torch.full((30,), torch.nan)}
    with pytest.raises(NonFiniteError, match="`w` of model 2"):
        merge(states, method="lawa", last=2)
    with pytest.raises(StateDictError, match="`state_dicts` should be a list"):
        merge(states[0], method="lawa")  # type: ignore[arg-type]


def test_statistics_are_those_of_the_last_snapshots() -> None:
    states = [
        {"n.running_mean": torch.tensor([mean]), "n.running_var": torch.tensor([variance])}
        for mean, variance in [(50.0, 9.0), (0.0, 1.0), (2.0, 3.0)]
    ]
    merged = merge(states, method="lawa", last=2)
    assert merged["n.running_mean"].item() == 1.0 and merged["n.running_var"].item() == 3.0


@pytest.mark.parametrize("last", [2, 5, 20])
def test_a_run_averages_its_last_epochs(tmp_path: Path, last: int) -> None:
    context = training_context(tmp_path)
    fused = LAWA(last=last).apply(context)
    steps = list(range(EPOCH, EPOCH * EPOCHS + 1, EPOCH))[-last:]
    merged = merge(weights_at(context, steps), method="uniform_soup")
    torch.testing.assert_close(dict(fused.network.state_dict()), merged, rtol=1e-6, atol=1e-7)
    assert fused.diagnostics["snapshots"] == len(steps) and fused.steps == EPOCH * EPOCHS


def test_a_budget_in_steps_counts_epochs_from_its_end(tmp_path: Path) -> None:
    context = training_context(tmp_path, epochs=None, steps=11)
    fused = LAWA(last=3).apply(context)
    merged = merge(weights_at(context, [5, 8, 11]), method="uniform_soup")
    torch.testing.assert_close(dict(fused.network.state_dict()), merged, rtol=1e-6, atol=1e-7)


def test_the_last_one_is_the_end_of_training(tmp_path: Path) -> None:
    context = training_context(tmp_path, batch_norm=True)
    fused = LAWA(last=1).apply(context)
    assert equal(dict(fused.network.state_dict()), weights_at(context, [EPOCH * EPOCHS])[0])
    assert fused.diagnostics["verdict"] == (
        "1 snapshot: nothing to average. Should `last` or training.epochs be larger? Found `last = 1`."
    )


def test_bad_values_are_refused() -> None:
    with pytest.raises(HyperparameterError, match="`last` should be >= 1. Found `last = 0`"):
        LAWA(last=0)
