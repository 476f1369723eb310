"""Laws of methods that merge task vectors, beyond those of all per-tensor methods."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.strategy.weight_fusion.cases_task_vectors import CASES
from tests.strategy.weight_fusion.task_vector_inputs import random_models
from transfuse.strategy.weight_fusion import SCE, Breadcrumbs, BreadcrumbsTies, Scaled, TensorFusion, Ties, Weighted

METHODS = [
    *((case.method, case.models) for case in CASES),
    (Ties(density=0.3, scope="model", elect="count", weigh="after", rescale="l1", weights=(0.5, 1.0, 2.0)), 3),
    (Breadcrumbs(weights=(0.5, 1.0, 2.0), density=0.5), 3),
    (BreadcrumbsTies(merge="mean", density=0.5), 3),
    (SCE(select=0.4), 3),
]


def name(value: TensorFusion | int) -> str:
    return str(value) if isinstance(value, int) else value.name.rpartition("/")[2]


methods = pytest.mark.parametrize(("method", "count"), METHODS, ids=name)


@methods
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_models_that_did_not_move_give_the_base(method, count: int, dtype: torch.dtype) -> None:
    _, base = random_models(1, 333, dtype)
    assert torch.equal(method.merged([base] * count, base)["w"], base["w"])


@methods
def test_what_no_model_changed_stays(method, count: int) -> None:
    models, base = random_models(count, 333, torch.float32)
    for model in models:
        model["w"][100:200] = base["w"][100:200]
        model["frozen"] = base["w"].clone()
    merged = method.merged(models, base | {"frozen": base["w"].clone()})
    assert torch.equal(merged["w"][100:200], base["w"][100:200]) and torch.equal(merged["frozen"], base["w"])


@methods
def test_translation_moves_the_result(method, count: int) -> None:
    models, base = random_models(count, 333)
    moved = [{"w": state["w"] + 2.0} for state in (*models, base)]
    expected = method.merged(models, base)["w"] + 2.0
    torch.testing.assert_close(method.merged(moved[:-1], moved[-1])["w"], expected, rtol=1e-12, atol=1e-13)


@methods
def test_task_vectors_three_times_as_long_give_three_times_the_change(method, count: int) -> None:
    models, base = random_models(count, 333)
    base["w"].zero_()  # so that the changes are exact
    longer = [{"w": 3 * model["w"]} for model in models]
    expected = 3 * method.merged(models, base)["w"]
    torch.testing.assert_close(method.merged(longer, base)["w"], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("method", "count"), [pair for pair in METHODS if isinstance(pair[0], Scaled)], ids=name)
def test_scale_0_gives_the_base(method, count: int) -> None:
    models, base = random_models(count, 333, torch.float32)
    assert torch.equal(replace(method, scale=0.0).merged(models, base)["w"], base["w"])


@methods
def test_order_of_models_and_weights_together_changes_nothing(method, count: int) -> None:
    models, base = random_models(count, 333)
    turned = [*models[1:], models[0]]
    if isinstance(method, Weighted) and isinstance(method.weights, tuple):
        other = replace(method, weights=(*method.weights[1:], method.weights[0]))
    else:
        other = method
    torch.testing.assert_close(
        other.merged(turned, base)["w"], method.merged(models, base)["w"], rtol=1e-12, atol=1e-14
    )
