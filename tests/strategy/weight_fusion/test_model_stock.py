from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from transfuse.strategy.weight_fusion import ModelStock, merge
from transfuse.types import HyperparameterError, MissingBaseError


@pytest.mark.parametrize(("name", "models"), [("model_stock", (1, 2, 3)), ("model_stock_2", (1, 2))])
def test_golden(golden: Path, name: str, models: tuple[int, ...]) -> None:
    states = [load_file(golden / f"checkpoint_ft{index}.safetensors") for index in models]
    base = load_file(golden / "checkpoint_base.safetensors")
    merged = merge(states, method="model_stock", base=base, clamp=False)
    for key, value in load_file(golden / f"checkpoint_{name}.safetensors").items():
        if name == "model_stock_2" and key.endswith("layers.0.self_attn.o_proj.weight"):
            continue  # task vectors are exactly opposite: the peer divides by 0
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-6)


def test_equal_task_vectors_go_all_the_way_and_orthogonal_ones_stay() -> None:
    base = {"w": torch.tensor([1.0, 1.0])}
    same = {"w": torch.tensor([2.0, 3.0])}
    torch.testing.assert_close(merge([same, same, same], method="model_stock", base=base)["w"], same["w"])
    orthogonal = [{"w": torch.tensor([2.0, 1.0])}, {"w": torch.tensor([1.0, 2.0])}]
    assert torch.equal(merge(orthogonal, method="model_stock", base=base)["w"], base["w"])


def test_opposite_task_vectors_give_the_base() -> None:
    base = {"w": torch.zeros(2)}
    models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-1.0, -2.0])}]
    for clamp in (True, False):
        assert torch.equal(merge(models, method="model_stock", base=base, clamp=clamp)["w"], base["w"])


def test_rows_have_ratios_of_their_own() -> None:
    base = {"w": torch.zeros(2, 2)}
    models = [{"w": torch.tensor([[1.0, 0.0], [1.0, 0.0]])}, {"w": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}]
    merged = merge(models, method="model_stock", base=base, granularity="row")["w"]
    torch.testing.assert_close(merged, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_bad_input() -> None:
    with pytest.raises(HyperparameterError, match="`granularity` should be"):
        ModelStock(granularity="layer")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="`average` should be"):
        ModelStock(average="median")  # type: ignore[arg-type]
    with pytest.raises(MissingBaseError):
        merge([{"w": torch.ones(2)}] * 2, method="model_stock")
