from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import random_models
from transfuse.strategy.weight_fusion import ModelCountError, WiseFT, merge
from transfuse.types import HyperparameterError, MissingBaseError, NeedsContextError


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_golden(golden: Path, alpha: float) -> None:
    with np.load(golden / "wise_ft.npz") as arrays:
        start, model = ({key: arrays[f"in_theta{index}.{key}"] for key in "wbn"} for index in (0, 1))
        merged = merge([model], method="wise_ft", base=start, alpha=alpha)
        for key in "wbn":
            np.testing.assert_allclose(merged[key].numpy(), arrays[f"out_lerp{alpha}.{key}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ends_and_equal_ends_are_exact(dtype: torch.dtype) -> None:
    (model,), base = random_models(1, 999, dtype)
    assert torch.equal(WiseFT(alpha=0.0).merged([model], base)["w"], base["w"])
    assert torch.equal(WiseFT(alpha=1.0).merged([model], base)["w"], model["w"])
    for alpha in (0.1, 0.3, 0.5, 0.9):
        assert torch.equal(WiseFT(alpha=alpha).merged([base], base)["w"], base["w"])


def test_extrapolation_is_asked_for_by_name() -> None:
    model, base = {"w": torch.tensor([3.0])}, {"w": torch.tensor([1.0])}
    for alpha, expected in ((1.5, 4.0), (-0.5, 0.0)):
        with pytest.raises(
            HyperparameterError, match=rf"`alpha` should be in \[0, 1\]. Found `alpha = {alpha}`. Did you"
        ):
            WiseFT(alpha=alpha)
        assert WiseFT(alpha=alpha, extrapolate=True).merged([model], base)["w"].item() == expected


def test_bad_input_is_refused() -> None:
    models, base = random_models(2, 3)
    with pytest.raises(ModelCountError):
        WiseFT().merged(models, base)
    with pytest.raises(MissingBaseError):
        WiseFT().merged(models[:1])
    with pytest.raises(NeedsContextError, match="alpha=search needs labelled validation data"):
        WiseFT(alpha="search").merged(models[:1], base)
    for fields, message in (
        ({"alpha": float("nan")}, "`alpha` should be a finite number or search"),
        ({"alpha": "best"}, "`alpha` should be a finite number or search. Found `alpha = best`"),
        ({"grid": ()}, "`grid` should have at least one value"),
        ({"grid": (0.5, 2.0)}, r"`grid` should be in \[0, 1\]. Found `grid = 2.0`"),
    ):
        with pytest.raises(HyperparameterError, match=message):
            WiseFT(**fields)


def test_alpha_is_searched_on_validation(toys) -> None:
    data = toys.development()
    start, (member,) = toys.finetuned(1, data)
    fused = WiseFT(alpha="search", grid=(0.0, 0.5, 1.0)).apply(toys.context([member], data, start))
    tried = fused.diagnostics["search"]["tried"]
    best = min(tried, key=lambda entry: entry["score"])["alpha"]
    assert fused.diagnostics["search"]["taken"] == {"alpha": best} and fused.looks == len(tried) == 3
    expected = WiseFT(alpha=best).merged([member.state_dict()], start.state_dict())
    assert all(torch.equal(value, expected[key]) for key, value in fused.network.state_dict().items())
