from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import MultiSlerp, merge
from transfuse.types import HyperparameterError


def test_golden(golden: Path) -> None:
    states = [load_file(golden / f"checkpoint_ft{index}.safetensors") for index in (1, 2, 3)]
    merged = merge(states, method="multislerp", weights=[0.5, 0.3, 0.4])
    for key, value in load_file(golden / "checkpoint_multislerp.safetensors").items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("with_base", [False, True])
def test_equal_models_give_that_model(count: int, with_base: bool) -> None:
    stream = torch.Generator().manual_seed(0)
    model, start = ({"w": torch.randn(40, generator=stream, dtype=torch.float64)} for _ in range(2))
    merged = merge([model] * count, method="multislerp", base=start if with_base else None)
    torch.testing.assert_close(merged["w"], model["w"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("logarithm", ["projected", "sphere"])
def test_two_models_with_equal_weights_give_the_karcher_mean(logarithm: str) -> None:
    stream = torch.Generator().manual_seed(1)
    states = [{"w": torch.randn(40, generator=stream, dtype=torch.float64)} for _ in range(2)]
    ours = merge(states, method="multislerp", logarithm=logarithm)["w"]
    torch.testing.assert_close(ours, merge(states, method="karcher")["w"], rtol=1e-9, atol=1e-12)


def test_a_task_vector_of_zeros_gives_the_base() -> None:
    base = {"w": torch.tensor([1.0, -2.0])}
    assert torch.equal(merge([base, base], method="multislerp", base=base)["w"], base["w"])


def test_a_base_of_zeros_changes_nothing_and_any_other_moves_the_result() -> None:
    stream = torch.Generator().manual_seed(2)
    states = [{"w": torch.randn(20, generator=stream, dtype=torch.float64)} for _ in range(3)]
    free = merge(states, method="multislerp", weights=[1, 2, 3])["w"]
    base = {"w": torch.full((20,), 1.5, dtype=torch.float64)}
    zeros = {"w": torch.zeros(20, dtype=torch.float64)}
    assert torch.equal(merge(states, method="multislerp", weights=[1, 2, 3], base=zeros)["w"], free)
    moved = merge([{"w": state["w"] + 1.5} for state in states], method="multislerp", weights=[1, 2, 3], base=base)
    torch.testing.assert_close(moved["w"], free + 1.5, rtol=1e-12, atol=1e-12)


def test_logarithms_of_the_sphere_are_one_step_of_the_karcher_mean() -> None:
    stream = torch.Generator().manual_seed(3)
    states = [{"w": torch.randn(20, generator=stream, dtype=torch.float64)} for _ in range(3)]
    weights = [0.5, 0.3, 0.2]
    step = merge(states, method="karcher", weights=weights, max_iter=1)["w"]
    ours = merge(states, method="multislerp", weights=weights, logarithm="sphere")["w"]
    torch.testing.assert_close(ours, step, rtol=1e-12, atol=1e-14)
    mean = merge(states, method="karcher", weights=weights)["w"]
    projected = merge(states, method="multislerp", weights=weights)["w"]
    assert (ours - mean).norm() < (projected - mean).norm()


@pytest.mark.parametrize("method", ["multislerp", "karcher"])
def test_directions_that_cancel_give_the_mean_and_zeros_have_none(method: str) -> None:
    model = {"w": torch.tensor([1.0, 2.0])}
    opposite = {"w": torch.tensor([-3.0, -6.0])}
    torch.testing.assert_close(merge([model, opposite], method=method)["w"], torch.tensor([-1.0, -2.0]))
    zeros = {"w": torch.zeros(2)}
    torch.testing.assert_close(merge([model, zeros], method=method)["w"], torch.tensor([0.5, 1.0]))
    assert torch.equal(merge([zeros, zeros], method=method)["w"], zeros["w"])


def test_bad_input() -> None:
    with pytest.raises(HyperparameterError, match="`logarithm` should be projected or sphere"):
        MultiSlerp(logarithm="other")  # type: ignore[arg-type]
    for weights, message in (([1.0, -0.5], "`weights` should be >= 0"), ([0.0, 0.0], "`weights` should not sum to 0")):
        with pytest.raises(HyperparameterError, match=message):
            merge([{"w": torch.ones(2)}] * 2, method="multislerp", weights=weights)
