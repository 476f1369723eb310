from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.strategy.weight_fusion.trajectory import EPOCH, EPOCHS, equal, golden_snapshots, training_context, weights_at
from tests.toy import SIGN, VALUE
from transfuse.models.batch_norm import full_batches, reestimate
from transfuse.models.predict import predict
from transfuse.strategy.baseline import Scratch
from transfuse.strategy.weight_fusion import EMA, LAWA, SWA, merge
from transfuse.types import HyperparameterError

END = EPOCH * EPOCHS


def mean(states: list[dict[str, Tensor]], key: str) -> Tensor:
    return torch.stack([state[key].double() for state in states]).mean(0).to(states[0][key].dtype)


def test_golden_mean_and_statistics_measured_anew() -> None:
    states, arrays = golden_snapshots()
    merged = merge(states, method="swa")
    for key in (key for key in merged if "running_var" not in key and "num_batches" not in key):
        name = "swa_buf" if "running_mean" in key else "swa"
        np.testing.assert_allclose(merged[key], arrays[f"out_{name}.{key}"], rtol=1e-6, atol=1e-6)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    network.load_state_dict(merged)
    reestimate(network, network.modules(), torch.from_numpy(arrays["in_x"]).split(20))
    for key, value in network.state_dict().items():
        if "num_batches" not in key:
            np.testing.assert_allclose(value, arrays[f"out_swa_updatebn.{key}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_thousand_snapshots_do_not_drift(dtype: torch.dtype) -> None:
    stream = np.random.default_rng(0)
    values = [torch.from_numpy(1 + 0.1 * stream.normal(size=20)).to(dtype) for _ in range(1000)]
    expected = torch.stack([value.double() for value in values]).mean(0)
    merged = merge([{"w": value} for value in values], method="swa")["w"]
    assert torch.equal(merged, expected.to(dtype))


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({}, [18, 21, 24]),  # the epoch that ends exactly at 0.75 counts
        ({"start": 0.76}, [21, 24]),
        ({"start": 0.0, "every": 3}, [6, 15, 24]),
    ],
)
def test_a_run_averages_the_ends_of_its_late_epochs(tmp_path: Path, fields: dict[str, float], steps: list[int]) -> None:
    context = training_context(tmp_path)
    fused = SWA(**fields).apply(context)
    states = weights_at(context, steps)
    assert fused.network is not None and fused.diagnostics["snapshots"] == len(steps)
    for key, value in fused.network.state_dict().items():
        torch.testing.assert_close(value, mean(states, key), rtol=1e-6, atol=1e-7)
    merged = merge(states, method="swa")
    torch.testing.assert_close(merged, dict(fused.network.state_dict()), rtol=1e-6, atol=1e-7)


def test_its_training_is_that_of_scratch_and_is_charged(tmp_path: Path) -> None:
    context = training_context(tmp_path, keep="last")
    fused, scratch = SWA().apply(context), Scratch().apply(context)
    assert context.base_models.used() == ()
    assert fused.steps == scratch.steps == END and fused.history == scratch.history
    assert fused.diagnostics["last_weights"] == scratch.validation
    assert fused.looks == 0 and fused.fit == {} and fused.members == ()
    assert fused.validation != scratch.validation


def test_patience_and_keep_do_not_apply(tmp_path: Path) -> None:
    context = training_context(tmp_path, lr=1.0)
    impatient = replace(context, training=replace(context.training, patience=1, keep="best"))
    first, second = SWA().apply(context), SWA().apply(impatient)
    assert second.steps == END
    assert equal(dict(first.network.state_dict()), dict(second.network.state_dict()))


@pytest.mark.parametrize("batch_norm", ["reestimate", "average", "keep"])
@pytest.mark.parametrize("method", [SWA(), EMA(decay=0.5), LAWA(last=3)], ids=lambda method: type(method).__name__)
def test_a_pause_in_the_middle_of_averaging_changes_no_bit(
    tmp_path: Path, method: SWA | EMA | LAWA, batch_norm: str
) -> None:
    method = replace(method, batch_norm=batch_norm)
    context = training_context(tmp_path, batch_norm=True)
    whole = method.apply(context)
    arm = method.arm(context)
    assert arm.total_steps == END
    for step in (5, 19, 22, END):
        assert "validation/loss" in arm.advance(step)
    paused = arm.finish()
    assert equal(dict(whole.network.state_dict()), dict(paused.network.state_dict()))
    assert whole.validation == paused.validation and whole.diagnostics == paused.diagnostics


def test_statistics_are_measured_averaged_or_kept(tmp_path: Path) -> None:
    context = training_context(tmp_path, batch_norm=True)
    states = weights_at(context, [18, 21, 24])
    found = {mode: SWA(batch_norm=mode).apply(context) for mode in ("reestimate", "average", "keep")}
    assert all(fused.diagnostics["batch_norm"] == mode for mode, fused in found.items())
    network = found["reestimate"].network
    expected = {mode: dict(fused.network.state_dict()) for mode, fused in found.items()}
    mean_key, variance_key = "backbone.stages.0.1.running_mean", "backbone.stages.0.1.running_var"
    means = torch.stack([state[mean_key] for state in states])
    variances = torch.stack([state[variance_key] for state in states])
    torch.testing.assert_close(expected["average"][mean_key], means.mean(0))
    torch.testing.assert_close(
        expected["average"][variance_key], variances.mean(0) + means.var(0, correction=0), rtol=1e-5, atol=1e-7
    )
    assert torch.equal(expected["keep"][variance_key], states[-1][variance_key])
    inputs = context.development.train.inputs
    batches = full_batches(inputs, context.training.batch_size, context.generator("weight_fusion/batch_norm"))
    hidden = [network.backbone.stages[0][0](batch) for batch in batches]
    measured = torch.stack([values.var(0) for values in hidden]).mean(0)
    torch.testing.assert_close(expected["reestimate"][variance_key], measured, rtol=1e-5, atol=1e-7)
    for mode in ("average", "keep"):
        torch.testing.assert_close(expected[mode]["heads.sign.linear.weight"], mean(states, "heads.sign.linear.weight"))


@pytest.mark.parametrize("fields", [{"fuse": "backbone"}, {"skip": ("heads.*",)}, {"only": ("backbone.*",)}])
def test_what_is_left_out_is_that_of_the_end(tmp_path: Path, fields: dict[str, object]) -> None:
    context = training_context(tmp_path)
    states = weights_at(context, [18, 21, 24])
    fused = SWA(**fields).apply(context)  # type: ignore[arg-type]
    for key, value in fused.network.state_dict().items():
        if key.startswith("heads."):
            assert torch.equal(value, states[-1][key])
        else:
            torch.testing.assert_close(value, mean(states, key), rtol=1e-6, atol=1e-7)
    assert fused.diagnostics["fused_tensors"] == 2


def test_several_tasks_are_trained_together(tmp_path: Path) -> None:
    context = training_context(tmp_path, tasks=(SIGN, VALUE))
    fused = SWA().apply(context)
    assert set(fused.validation) == {"sign", "value"}
    assert set(predict(fused.network, context.development.validation.inputs)) == {"sign", "value"}


def test_finished_before_the_first_snapshot_it_is_the_network_as_it_is(tmp_path: Path) -> None:
    context = training_context(tmp_path)
    arm = SWA().arm(context)
    arm.advance(6)
    fused = arm.finish()
    assert equal(dict(fused.network.state_dict()), weights_at(context, [6])[0])
    assert fused.steps == 6 and fused.diagnostics["snapshots"] == 0
    assert fused.diagnostics["verdict"].startswith("0 snapshots: nothing to average. Should `start` be smaller?")


def test_a_pattern_without_a_match_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`skip` should match names of tensors. Found `skip = nothing`"):
        SWA(skip=("nothing",)).arm(training_context(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 1.0}, r"`start` should be in \[0, 1\). Found `start = 1.0`"),
        ({"start": -0.1}, r"`start` should be in \[0, 1\). Found `start = -0.1`"),
        ({"every": 0}, "`every` should be >= 1. Found `every = 0`"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        SWA(**fields)
