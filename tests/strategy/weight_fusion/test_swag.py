from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.strategy.weight_fusion.trajectory import EPOCH, EPOCHS, equal, training_context, weights_at
from tests.toy import SIGN, VALUE
from transfuse.models.predict import predict
from transfuse.strategy.weight_fusion import SWA, SWAG, merge
from transfuse.strategy.weight_fusion.swag import draw
from transfuse.training.averaging import Kept, Moments
from transfuse.types import HyperparameterError, NeedsContextError, TrainingError


def moments(rank: int = 3) -> Kept:
    stream = torch.Generator().manual_seed(0)
    kept: Kept = {}
    for _ in range(6):
        values = {"a": torch.randn(2, generator=stream), "b": torch.randn(1, 2, generator=stream)}
        Moments(rank=rank).update(kept, values)
    return kept


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_draws_have_the_mean_and_covariance_of_the_formula(scale: float) -> None:
    kept = moments()
    stream = torch.Generator().manual_seed(1)
    draws = [draw(kept, scale, stream) for _ in range(8000)]
    found = torch.stack([torch.cat([each["a"], each["b"].reshape(-1)]) for each in draws])
    mean = torch.cat([kept["mean"]["a"], kept["mean"]["b"].reshape(-1)])
    variance = torch.cat([kept["spread"]["a"], kept["spread"]["b"].reshape(-1)]) / 6
    rows = torch.stack([torch.cat([each["a"], each["b"].reshape(-1)]) for each in kept["deviations"]]).double()
    # scale (V + D D^T / (R - 1)) / 2; deviations are shared by all tensors, so that tensors are correlated
    covariance = scale / 2 * (torch.diag(variance) + rows.T @ rows / 2)
    deviation = covariance.diagonal().sqrt()
    assert ((found.mean(0) - mean).abs() < 4 * deviation / math.sqrt(8000)).all()
    # the standard error of a sample covariance is sqrt((c_ij^2 + c_ii c_jj) / n)
    error = ((covariance.square() + deviation.square()[:, None] * deviation.square()[None, :]) / 8000).sqrt()
    assert ((found.T.cov() - covariance).abs() < 4 * error).all()
    assert (covariance[:2, 2:].abs() > 6 * error[:2, 2:]).any()


def test_the_standard_deviation_grows_with_the_root_of_the_scale() -> None:
    kept = moments()
    one, four = (draw(kept, scale, torch.Generator().manual_seed(5)) for scale in (1.0, 4.0))
    for key, mean in kept["mean"].items():
        torch.testing.assert_close(four[key] - mean, 2 * (one[key] - mean), rtol=1e-10, atol=1e-12)


def test_statistics_are_not_drawn() -> None:
    kept: Kept = {}
    for number in (1.0, 2.0, 4.0):
        Moments(rank=2).update(kept, {"n.running_mean": torch.tensor(number), "n.running_var": torch.tensor(number)})
    assert equal(draw(kept, 1.0, torch.Generator()), kept["mean"])


def test_scale_zero_is_the_mean_of_the_snapshots(tmp_path: Path) -> None:
    context = training_context(tmp_path, batch_norm=True)
    fused, swa = SWAG(scale=0.0, samples=2).apply(context), SWA().apply(context)
    for member in fused.network.members:
        torch.testing.assert_close(dict(member.state_dict()), dict(swa.network.state_dict()), rtol=1e-6, atol=1e-7)
    assert fused.validation["sign"]["nll"] == pytest.approx(swa.validation["sign"]["nll"], rel=1e-5)


@pytest.mark.parametrize("batch_norm", ["reestimate", "average", "keep"])
def test_the_network_averages_the_outputs_of_its_samples(tmp_path: Path, batch_norm: str) -> None:
    context = training_context(tmp_path, batch_norm=True, tasks=(SIGN, VALUE))
    fused = SWAG(samples=4, batch_norm=batch_norm).apply(context)  # type: ignore[arg-type]
    inputs = context.development.validation.inputs
    members = [predict(member, inputs) for member in fused.network.members]
    assert len(members) == 4 and not torch.equal(members[0]["sign"], members[1]["sign"])
    outputs = predict(fused.network, inputs)
    expected = torch.stack([each["sign"].softmax(1) for each in members]).mean(0)
    torch.testing.assert_close(outputs["sign"].softmax(1), expected)
    torch.testing.assert_close(outputs["value"], torch.stack([each["value"] for each in members]).mean(0))
    assert fused.steps == EPOCH * EPOCHS and fused.looks == 0 and fused.combiners is None
    assert fused.diagnostics["snapshots"] == fused.diagnostics["deviations"] == 3
    assert fused.diagnostics["batch_norm"] == batch_norm
    assert fused.diagnostics["predictor"] == "the average of the outputs of 4 sampled networks; no single network"


def test_what_is_left_out_is_that_of_the_end(tmp_path: Path) -> None:
    context = training_context(tmp_path)
    last = weights_at(context, [EPOCH * EPOCHS])[0]
    for member in SWAG(samples=2, skip=("heads.*",)).apply(context).network.members:
        state = member.state_dict()
        assert all(torch.equal(value, last[key]) for key, value in state.items() if key.startswith("heads."))
        assert not torch.equal(state["backbone.stages.0.0.weight"], last["backbone.stages.0.0.weight"])


def test_a_pause_changes_no_bit_and_the_seed_decides(tmp_path: Path) -> None:
    context = training_context(tmp_path)
    whole, arm = SWAG(samples=2, rank=2).apply(context), SWAG(samples=2, rank=2).arm(context)
    for step in (5, 19, 22, arm.total_steps):
        arm.advance(step)
    assert equal(dict(whole.network.state_dict()), dict(arm.finish().network.state_dict()))


def test_fewer_than_two_snapshots_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="needs at least 2 snapshots. Found 1: `start = 0.9` and `every = 1`"):
        SWAG(start=0.9).arm(training_context(tmp_path))
    arm = SWAG().arm(training_context(tmp_path))
    arm.advance(18)
    with pytest.raises(TrainingError, match="was finished at step 18, before its second snapshot"):
        arm.finish()


def test_no_state_dict_holds_the_result() -> None:
    with pytest.raises(NeedsContextError, match="no state dict holds them; .* take method=swa"):
        merge([{"w": torch.zeros(1)}] * 2, method="swag")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": 1.0}, r"`start` should be in \[0, 1\)"),
        ({"every": 0}, "`every` should be >= 1"),
        ({"rank": 1}, "`rank` should be >= 2. Found `rank = 1`"),
        ({"samples": 0}, "`samples` should be >= 1. Found `samples = 0`"),
        ({"scale": -1.0}, "`scale` should be >= 0 and finite. Found `scale = -1.0`"),
    ],
)
def test_bad_values_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        SWAG(**fields)  # type: ignore[arg-type]
