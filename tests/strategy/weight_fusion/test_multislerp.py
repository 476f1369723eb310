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


@pytest.mark.parametrize("logarithm", ["projected", "sphere"])
def test_two_models_with_equal_weights_give_the_karcher_mean(logarithm: str) -> None:
    stream = torch.Generator().manual_seed(1)
    states = [{"w": torch.randn(40, generator=stream, dtype=torch.float64)} for _ in range(2)]
    ours = merge(states, method="multislerp", logarithm=logarithm)["w"]
    torch.testing.assert_close(ours, merge(states, method="karcher")["w"], rtol=1e-9, atol=1e-12)


def test_a_task_vector_of_zeros_gives_the_base() -> None:
    base = {"w": torch.tensor([1.0, -2.0])}
    assert torch.equal(merge([base, base], method="multislerp", base=base)["w"], base["w"])


def test_bad_input() -> None:
    with pytest.raises(HyperparameterError, match="`logarithm` should be projected or sphere"):
        MultiSlerp(logarithm="other")  # type: ignore[arg-type]
