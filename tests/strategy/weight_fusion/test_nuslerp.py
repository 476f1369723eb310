from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import NuSlerp, merge
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(
    ("name", "over", "with_base"),
    [
        ("nuslerp", "tensor", False),
        ("nuslerp_base", "tensor", True),
        ("nuslerp_rows", "column", False),  # the peer's names are the other way round
        ("nuslerp_cols", "row", False),
    ],
)
def test_golden(golden: Path, name: str, over: str, with_base: bool) -> None:
    states = [load_file(golden / f"checkpoint_{model}.safetensors") for model in ("ft1", "ft2")]
    base = load_file(golden / "checkpoint_base.safetensors") if with_base else None
    merged = merge(states, method="nuslerp", weights=[0.7, 0.3], base=base, over=over)
    for key, value in load_file(golden / f"checkpoint_{name}.safetensors").items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


def test_equals_slerp_where_vectors_are_not_parallel() -> None:
    stream = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(6, 4, generator=stream, dtype=torch.float64)} for _ in range(2)]
    ours = merge(states, method="nuslerp", weights=[3, 1])["w"]
    torch.testing.assert_close(ours, merge(states, method="slerp", t=0.25)["w"], rtol=1e-12, atol=1e-14)


def test_rows_are_vectors_of_their_own() -> None:
    states = [{"w": torch.tensor([[1.0, 0.0], [0.0, 2.0]])}, {"w": torch.tensor([[0.0, 1.0], [2.0, 0.0]])}]
    merged = merge(states, method="nuslerp", over="row")["w"]
    torch.testing.assert_close(
        merged, torch.tensor([[0.5, 0.5], [1.0, 1.0]]).sqrt() * torch.tensor([[1.0], [2.0**0.5]])
    )


@pytest.mark.parametrize("over", ["tensor", "row", "column"])
def test_the_base_moves_the_result(over: str) -> None:
    stream = torch.Generator().manual_seed(1)
    states = [{"w": torch.randn(5, 3, generator=stream, dtype=torch.float64)} for _ in range(3)]
    moved = [{"w": state["w"] + 2.5} for state in states]
    first = merge(states[:2], method="nuslerp", base=states[2], over=over, weights=[1, 3])["w"]
    second = merge(moved[:2], method="nuslerp", base=moved[2], over=over, weights=[1, 3])["w"]
    torch.testing.assert_close(second, first + 2.5, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("over", ["tensor", "row", "column"])
def test_models_that_equal_the_base_give_it(over: str) -> None:
    base = {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(2))}
    assert torch.equal(merge([base, base], method="nuslerp", base=base, over=over)["w"], base["w"])


def test_a_vector_of_one_dimension_is_one_row_and_one_column() -> None:
    stream = torch.Generator().manual_seed(3)
    states = [{"w": torch.randn(6, generator=stream)} for _ in range(2)]
    whole = merge(states, method="nuslerp")["w"]
    for over in ("row", "column"):
        torch.testing.assert_close(merge(states, method="nuslerp", over=over)["w"], whole)


def test_bad_input() -> None:
    with pytest.raises(HyperparameterError, match="`over` should be tensor, row or column"):
        NuSlerp(over="layer")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="`weights` should be >= 0"):
        merge([{"w": torch.ones(2)}] * 2, method="nuslerp", weights=[1.0, -0.5])
