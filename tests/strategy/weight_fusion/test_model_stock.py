from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, networks
from transfuse.strategy.weight_fusion import ModelStock, merge
from transfuse.strategy.weight_fusion.model_stock import stock_ratio
from transfuse.types import HyperparameterError, MissingBaseError


@pytest.mark.parametrize(
    ("name", "models", "granularity"),
    [("model_stock", 3, "tensor"), ("model_stock_2", 2, "tensor"), ("model_stock_filter", 3, "row")],
)
def test_golden(golden: Path, name: str, models: int, granularity: str) -> None:
    states, base = checkpoints(golden)
    merged = merge(states[:models], method="model_stock", base=base, clamp=False, granularity=granularity)
    assert_golden(merged, golden / f"checkpoint_{name}.safetensors", 2e-7)


@pytest.mark.parametrize("models", [2, 3])
def test_golden_of_mean_angles(golden: Path, models: int) -> None:
    states, base = networks(golden, "f64")
    merged = merge(states[:models], method="model_stock", base=base, average="angle", clamp=False)
    assert_golden(merged, golden / f"model_stock_{models}_f64.safetensors", 1e-6)


def test_moves_and_scales_with_the_task_vectors() -> None:
    stream = torch.Generator().manual_seed(0)
    base, common, *parts = (torch.randn(30, generator=stream, dtype=torch.float64) for _ in range(5))
    deltas = [common + part for part in parts]

    def merged(shift: float, factor: float) -> torch.Tensor:
        states = [{"w": base + shift + factor * delta} for delta in deltas]
        return merge(states, method="model_stock", base={"w": base + shift})["w"] - base

    torch.testing.assert_close(merged(2.0, 1.0), merged(0.0, 1.0) + 2.0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged(0.0, 3.0), 3 * merged(0.0, 1.0), rtol=1e-12, atol=1e-12)


def test_an_unclamped_ratio_has_no_bound() -> None:
    cosine = torch.tensor([-0.6, 0.2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(stock_ratio(cosine, 2, clamp=False), 2 * cosine / (1 + cosine), rtol=1e-12, atol=0)
    assert stock_ratio(cosine, 2).tolist() == [0.0, pytest.approx(1 / 3), 1.0]


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_models_that_equal_the_base_give_it(granularity: str) -> None:
    base = {"w": torch.randn(4, 3, generator=torch.Generator().manual_seed(1))}
    assert torch.equal(merge([base] * 5, method="model_stock", base=base, granularity=granularity)["w"], base["w"])


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
