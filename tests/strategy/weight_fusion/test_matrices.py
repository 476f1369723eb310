"""Laws of the methods of whole matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.toy import SIGN, VALUE, make_context, make_development, make_setting
from transfuse.base_models import PerTask
from transfuse.strategy.weight_fusion import WUDI, IsoC, IsoCTS, TSVMerge
from transfuse.strategy.weight_fusion.matrices import MatrixFusion, polar, svd
from transfuse.types import HyperparameterError, MissingBaseError

METHODS = [IsoC(scale=0.7), IsoCTS(), IsoCTS(common_fraction=0.3), TSVMerge(), WUDI(), WUDI(solver="exact")]
SHAPES = [(12, 12), (5, 9), (9, 5), (1, 7), (7, 1), (1, 1), (2, 3)]
State = dict[str, Tensor]

methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name.rpartition("/")[2])
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def models_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[list[State], State]:
    stream = torch.Generator().manual_seed(shape[0])
    base = torch.randn(shape, generator=stream, dtype=torch.float64)
    models = [base + 0.1 * torch.randn(shape, generator=stream, dtype=torch.float64) for _ in range(3)]
    return [{"w": model.to(dtype)} for model in models], {"w": base.to(dtype)}


@methods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_models_that_did_not_move_give_the_base(method: MatrixFusion, dtype: torch.dtype) -> None:
    _, base = models_of((6, 4), dtype)
    assert torch.equal(method.merged([base] * 3, base)["w"], base["w"])


@methods
@shapes
def test_scale_0_gives_the_base(method: MatrixFusion, shape: tuple[int, int]) -> None:
    models, base = models_of(shape, torch.float32)
    assert torch.equal(replace(method, scale=0.0).merged(models, base)["w"], base["w"])


@methods
def test_the_scale_multiplies_the_change(method: MatrixFusion) -> None:
    models, base = models_of((6, 4))
    once, twice = (replace(method, scale=scale).merged(models, base)["w"] - base["w"] for scale in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once, rtol=1e-12, atol=1e-14)


@methods
@shapes
def test_translation_moves_the_result(method: MatrixFusion, shape: tuple[int, int]) -> None:
    models, base = models_of(shape)
    moved = [{"w": state["w"] + 2.0} for state in (*models, base)]
    expected = method.merged(models, base)["w"] + 2.0
    torch.testing.assert_close(method.merged(moved[:-1], moved[-1])["w"], expected, rtol=1e-11, atol=1e-11)


@methods
@shapes
def test_order_of_models_does_not_matter(method: MatrixFusion, shape: tuple[int, int]) -> None:
    models, base = models_of(shape)
    turned = method.merged([models[2], models[0], models[1]], base)["w"]
    torch.testing.assert_close(turned, method.merged(models, base)["w"], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method != WUDI()], ids=lambda method: method.name.rpartition("/")[2]
)
@shapes
def test_task_vectors_three_times_as_long_give_three_times_the_change(
    method: MatrixFusion, shape: tuple[int, int]
) -> None:
    models, base = models_of(shape)
    base["w"].zero_()  # so that the changes are exact
    longer = [{"w": 3 * model["w"]} for model in models]
    expected = 3 * method.merged(models, base)["w"]
    torch.testing.assert_close(method.merged(longer, base)["w"], expected, rtol=1e-11, atol=1e-12)


@methods
@pytest.mark.parametrize("shape", [(5,), (), (2, 3, 2, 2)], ids=str)
def test_other_tensors_are_averaged(method: MatrixFusion, shape: tuple[int, ...]) -> None:
    stream = torch.Generator().manual_seed(0)
    base, *models = (torch.randn(shape, generator=stream, dtype=torch.float64) for _ in range(4))
    merged = method.merged([{"w": model} for model in models], {"w": base})["w"]
    expected = base + method.scale * (torch.stack(models).mean(0) - base)
    torch.testing.assert_close(merged, expected, rtol=1e-12, atol=1e-14)


@methods
def test_rows_and_columns_that_no_model_moved_stay(method: MatrixFusion) -> None:
    models, base = models_of((9, 5))
    for model in models:
        model["w"][3], model["w"][:, 1] = base["w"][3], base["w"][:, 1]
    changed = method.merged(models, base)["w"] - base["w"]
    assert float(changed[3].abs().max()) < 1e-14 and float(changed[:, 1].abs().max()) < 1e-14
    assert float(changed.abs().max()) > 0.01


@methods
def test_a_model_that_did_not_move_is_no_trouble(method: MatrixFusion) -> None:
    models, base = models_of((6, 4))
    merged = method.merged([models[0], base, models[1]], base)["w"]
    assert bool(torch.isfinite(merged).all()) and not torch.equal(merged, base["w"])


@methods
def test_a_base_is_needed(method: MatrixFusion) -> None:
    with pytest.raises(MissingBaseError, match="needs the weights that all models started from"):
        method.merged(models_of((3, 3))[0])


def test_singular_vectors_of_rounding_are_none() -> None:
    left, right = torch.randn(6, 2, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    left_OR, values_R, right_RI = svd(left @ right)
    assert values_R.count_nonzero() == 2 and not bool(left_OR[:, 2:].any()) and not bool(right_RI[2:].any())
    torch.testing.assert_close((left_OR * values_R) @ right_RI, left @ right, rtol=0, atol=1e-12)


def test_the_polar_factor_is_the_orthogonal_part() -> None:
    matrix = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = polar(matrix)
    torch.testing.assert_close(factor.T @ factor, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)
    symmetric = factor.T @ matrix
    torch.testing.assert_close(symmetric, symmetric.T, rtol=0, atol=1e-12)
    assert float(torch.linalg.eigvalsh(symmetric).min()) > 0


@methods
def test_backbones_of_a_multi_task_run_are_merged(method: MatrixFusion, tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = method.apply(context)
    assert fused.network is not None and context.base_models.base is not None
    key, states = "backbone.stages.0.0.weight", [member.state for member in context.base_models]
    expected = method.merged([{"w": state[key]} for state in states], {"w": context.base_models.base.state[key]})["w"]
    assert torch.equal(fused.network.state_dict()[key], expected)
    assert fused.validation.keys() == {"sign", "value"}


def test_the_scale_is_searched_on_validation_data(tmp_path: Path) -> None:
    context = make_context(make_setting(make_development(SIGN, VALUE)), PerTask(), tmp_path)
    fused = IsoC(scale="search", grid=(0.0, 0.5, 1.0)).apply(context)
    assert fused.looks == 3 and fused.diagnostics["search"]["taken"]["scale"] in (0.0, 0.5, 1.0)


def test_bad_scales_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"`scale` should be a number >= 0 or search. Found `scale = -1.0`"):
        IsoC(scale=-1.0)
