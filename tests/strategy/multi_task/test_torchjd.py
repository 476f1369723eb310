from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

import transfuse
from tests.strategy.multi_task.golden import conflicting
from transfuse.config import read
from transfuse.strategy.multi_task import TorchJD
from transfuse.training.step import StepInfo
from transfuse.types import HyperparameterError, MissingExtraError

aggregation = pytest.importorskip("torchjd.aggregation")

NAMES = ("a", "b", "c")
EVERYONE = StepInfo(names=NAMES, tasks=NAMES)


def jacobians(count: int) -> list[torch.Tensor]:
    return [conflicting(3, seed=seed) for seed in range(count)]


def test_a_weighting_of_the_gramian_gets_ours() -> None:
    gradients_TP = conflicting(4, spread=10.0)
    found = transfuse.balance(gradients_TP, method="torchjd", aggregator=aggregation.Krum(n_byzantine=1))
    torch.testing.assert_close(found.direction_P, aggregation.Krum(n_byzantine=1)(gradients_TP))
    assert found.weights_T is not None
    assert sorted(found.weights_T.tolist()) == [0.0, 0.0, 0.0, 1.0]


def test_float32_rows_have_a_float64_gramian() -> None:
    gradients_TP = conflicting(3).float()
    found = TorchJD(aggregator=aggregation.AlignedMTL()).directing(gradients_TP)
    assert found.direction_P.dtype == torch.float32
    exact = gradients_TP.double()
    expected_T = aggregation.AlignedMTLWeighting()(exact @ exact.T)
    torch.testing.assert_close(found.weights_T, expected_T)


def test_a_weighting_of_the_jacobian_gets_the_rows() -> None:
    found = TorchJD(aggregator=aggregation.ExcessMTL(robust_step_size=0.1)).directing(conflicting(3))
    expected_T = aggregation.ExcessMTLWeighting(0.1)(conflicting(3))
    torch.testing.assert_close(found.weights_T, expected_T)


def test_an_aggregator_without_weights() -> None:
    gradients_TP = conflicting(3)
    found = transfuse.balance(gradients_TP, method="torchjd", aggregator=aggregation.TrimmedMean(trim_number=1))
    assert found.weights_T is None
    torch.testing.assert_close(found.direction_P, gradients_TP.median(dim=0).values)


def test_scales() -> None:
    gradients_TP, mean = conflicting(3), aggregation.Mean()
    for scale in ("sum", "published"):
        found = transfuse.balance(gradients_TP, method="torchjd", scale=scale, aggregator=mean)
        torch.testing.assert_close(found.direction_P, gradients_TP.mean(0))
    found = transfuse.balance(gradients_TP, method="torchjd", scale="sum_norm", aggregator=mean)
    torch.testing.assert_close(found.direction_P, gradients_TP.sum(0))


def test_one_task_gets_its_gradient_and_failures_the_sum() -> None:
    rule = TorchJD(aggregator=aggregation.Mean())
    assert torch.equal(rule.directing(conflicting(1)).direction_P, conflicting(1)[0])
    broken = TorchJD(aggregator=aggregation.Constant(torch.tensor([float("nan"), 1.0], dtype=torch.float64)))
    torch.testing.assert_close(broken.directing(conflicting(2)).direction_P, conflicting(2).sum(0))


def test_draws_come_from_the_step_and_leave_the_callers_stream_alone() -> None:
    gradients_TP, before = conflicting(3), torch.random.get_rng_state()
    directions = [
        transfuse.balance(gradients_TP, method="torchjd", aggregator=aggregation.GradDrop(), seed=seed).direction_P
        for seed in (0, 0, 1)
    ]
    assert torch.equal(directions[0], directions[1])
    assert not torch.equal(directions[0], directions[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: aggregation.GradVac(),
        lambda: aggregation.ExcessMTL(n_warmup_steps=1),
        lambda: aggregation.GramianWeightedAggregator(aggregation.CRMOGMWeighting(aggregation.PCGradWeighting())),
    ],
    ids=["gradvac", "excess", "crmogm"],
)
def test_a_saved_state_goes_on_as_if_nothing_was(make: Any) -> None:
    rule = TorchJD(aggregator=make())
    state, rows = rule.init(NAMES), jacobians(5)
    for jacobian_TP in rows[:2]:
        rule.directing(jacobian_TP, state, EVERYONE)
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    loaded, fresh = rule.init(NAMES), rule.init(NAMES)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    differs = False
    for seed, jacobian_TP in enumerate(rows[2:]):
        steps = [StepInfo(names=NAMES, tasks=NAMES, generator=torch.Generator().manual_seed(seed)) for _ in range(3)]
        one, other, new = (
            rule.directing(jacobian_TP, each, step).direction_P
            for each, step in zip((state, loaded, fresh), steps, strict=True)
        )
        assert torch.equal(one, other)
        differs = differs or not torch.equal(one, new)
    assert differs


def test_the_given_aggregator_is_not_changed() -> None:
    aggregator = aggregation.GradVac()
    TorchJD(aggregator=aggregator).directing(conflicting(3))
    assert aggregator.gramian_weighting._phi_t is None


def test_bad_values_are_told() -> None:
    with pytest.raises(HyperparameterError, match="`aggregator` should be an aggregator of torchjd.* Found .* 'Krum'"):
        TorchJD(aggregator="Krum")
    with pytest.raises(HyperparameterError, match="`heads` should be own: TM1 has no weights"):
        TorchJD(aggregator=aggregation.TrimmedMean(trim_number=1), heads="weighted")


def test_the_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'transfuse\[mtl\]'"):
        TorchJD(aggregator=aggregation.Mean())


def test_a_config_that_names_the_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aggregator = "strategy.aggregator={_target_: torchjd.aggregation.TrimmedMean, trim_number: 1}"
    with initialize_config_dir(config_dir=str(Path(__file__).parents[3] / "conf"), version_base="1.3"):
        config = compose("config", overrides=["data=digits_tasks", "strategy=multi_task/torchjd", aggregator])
    assert isinstance(read(config, tmp_path).strategy, TorchJD)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchjd"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"`strategy.aggregator._target_` needs the package torchjd.*\[mtl\]"):
        read(config, tmp_path)
