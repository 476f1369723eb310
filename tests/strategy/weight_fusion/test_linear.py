from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import LinearMerge, UniformSoup, merge
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(("name", "normalize"), [("checkpoint_linear", True), ("checkpoint_linear_nonorm", False)])
def test_golden_weighted_averages(golden: Path, name: str, normalize: bool) -> None:
    states = [load_file(golden / f"checkpoint_ft{index}.safetensors") for index in (1, 2, 3)]
    expected = load_file(golden / f"{name}.safetensors")
    merged = merge(states, method="linear", weights=[0.5, 0.3, 0.4], normalize=normalize)
    assert merged.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


def test_equal_weights_are_the_uniform_soup() -> None:
    states = [{"w": torch.randn(70_000, generator=torch.Generator().manual_seed(index))} for index in range(4)]
    soup, linear = UniformSoup().merged(states)["w"], LinearMerge().merged(states)["w"]
    torch.testing.assert_close(linear, soup, rtol=1e-6, atol=1e-7)


def test_one_model_with_all_the_weight_is_that_model() -> None:
    states = [{"w": torch.randn(99)} for _ in range(3)]
    assert torch.equal(LinearMerge(weights=(0.0, 2.0, 0.0)).merged(states)["w"], states[1]["w"])


def test_negative_weights_extrapolate() -> None:
    states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}]
    assert LinearMerge(weights=(2.0, -1.0)).merged(states)["w"].item() == -1.0


def test_bad_weights_are_refused() -> None:
    states = [{"w": torch.ones(2)}] * 2
    for weights, message in (
        ((1.0,), "`weights` should have 2 entries"),
        ((1.0, -1.0), "`weights` should not sum to 0"),
        ((1.0, float("nan")), "`weights` should be finite"),
    ):
        with pytest.raises(HyperparameterError, match=message):
            LinearMerge(weights=weights).merged(states)
    assert LinearMerge(weights=(1.0, -1.0), normalize=False).merged(states)["w"].tolist() == [0.0, 0.0]
