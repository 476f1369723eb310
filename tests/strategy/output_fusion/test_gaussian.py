"""Regression members that predict variances: `fuse(..., variances=...)`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.pool import describe, make_development
from transfuse.strategy.output_fusion import Average, InverseVariance, fuse, gaussian_mixture, gaussian_product
from transfuse.strategy.output_fusion.gaussian import GaussianMixture, GaussianProduct
from transfuse.types import IncompatibleStrategyError, NeedsContextError, PredictionError, Task

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "output_fusion" / "regression.npz")
MIXTURE: dict[str, Any] = {"method": "average"}
PRODUCT: dict[str, Any] = {"method": "inverse_variance", "variance": "predicted"}
VALUES = make_predictions("regression", outputs=2).logits_MNC
VARIANCES = 0.1 + torch.rand(VALUES.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("fields", "name"), [(MIXTURE, "mixture"), (PRODUCT, "product")])
def test_golden(fields: dict[str, Any], name: str) -> None:
    values, variances = GOLDEN["in_preds"][:, :, None], GOLDEN["in_variances"][:, :, None]
    found = fuse(values, kind="regression", variances=variances, **fields)
    assert found.variances_NC is not None
    np.testing.assert_allclose(found.logits_NC[:, 0].numpy(), GOLDEN[f"out_gaussian_{name}_mean"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.variances_NC[:, 0].numpy(), GOLDEN[f"out_gaussian_{name}_var"], rtol=0, atol=1e-8)


def test_moments_are_those_of_the_densities() -> None:
    f, v = np.array([0.3, -1.0, 2.0]), np.array([0.5, 0.2, 1.5])
    densities = {
        "mixture": lambda y: stats.norm.pdf(y, f, np.sqrt(v)).mean(),
        "product": lambda y: stats.norm.pdf(y, f, np.sqrt(v)).prod(),
    }
    found = {
        "mixture": gaussian_mixture(torch.tensor(f)[:, None, None], torch.tensor(v)[:, None, None]),
        "product": gaussian_product(torch.tensor(f)[:, None, None], torch.tensor(v)[:, None, None]),
    }
    for name, density in densities.items():
        zeroth, first, second = (
            integrate.quad(lambda y, p=power, p_of=density: y**p * p_of(y), -15, 15, limit=200)[0] for power in range(3)
        )
        mean = first / zeroth
        assert [float(each) for each in found[name]] == pytest.approx([mean, second / zeroth - mean**2], rel=1e-6)


def test_members_that_disagree_make_the_mixture_unsure_and_not_the_product() -> None:
    near, far = torch.tensor([[[0.0]], [[0.1]]]), torch.tensor([[[0.0]], [[9.0]]])
    ones = torch.ones(2, 1, 1)
    assert float(gaussian_mixture(far, ones)[1]) > 20 * float(gaussian_mixture(near, ones)[1])
    assert float(gaussian_product(far, ones)[1]) == float(gaussian_product(near, ones)[1]) == 0.5


@pytest.mark.parametrize("fields", [MIXTURE, PRODUCT])
def test_properties(fields: dict[str, Any]) -> None:
    found = fuse(VALUES, kind="regression", variances=VARIANCES, **fields)
    assert found.variances_NC is not None
    order = [2, 0, 1]
    turned = fuse(VALUES[order], kind="regression", variances=VARIANCES[order], **fields)
    torch.testing.assert_close((turned.logits_NC, turned.variances_NC), (found.logits_NC, found.variances_NC))
    one = fuse(VALUES[:1], kind="regression", variances=VARIANCES[:1], **fields)
    torch.testing.assert_close((one.logits_NC, one.variances_NC), (VALUES[0], VARIANCES[0]))
    scaled = fuse(1e3 * VALUES, kind="regression", variances=1e6 * VARIANCES, **fields)
    torch.testing.assert_close(scaled.variances_NC, 1e6 * found.variances_NC)
    assert isinstance(found.combiner, (GaussianMixture, GaussianProduct))
    further = found.combiner.moments(VALUES[:, :7], VARIANCES[:, :7])
    torch.testing.assert_close(further, (found.logits_NC[:7], found.variances_NC[:7]))
    single = fuse(VALUES.float(), kind="regression", variances=VARIANCES.float().numpy(), **fields)
    assert single.variances_NC is not None and single.logits_NC.dtype == single.variances_NC.dtype == torch.float32


def test_equal_members() -> None:
    values, variances = VALUES[:1].repeat(4, 1, 1), VARIANCES[:1].repeat(4, 1, 1)
    for moments, share in ((gaussian_mixture, 1.0), (gaussian_product, 0.25)):
        found = moments(values, variances)
        torch.testing.assert_close(found, (VALUES[0], share * VARIANCES[0]))


def test_the_mean_of_the_mixture_is_the_average() -> None:
    found = fuse(VALUES, kind="regression", variances=VARIANCES, **MIXTURE)
    plain = fuse(VALUES, kind="regression", **MIXTURE)
    torch.testing.assert_close(found.logits_NC, plain.logits_NC)
    torch.testing.assert_close(found.combiner(VALUES), plain.logits_NC)
    assert plain.variances_NC is None
    assert found.weights is not None and found.weights.tolist() == [1 / 3] * 3


def test_variances_of_any_size() -> None:
    values = torch.tensor([[[0.0]], [[1.0]]])
    tiny = gaussian_product(values, torch.tensor([[[1e-38]], [[1e-38]]]))
    assert float(tiny[0]) == 0.5 and float(tiny[1]) == pytest.approx(5e-39)
    floored = gaussian_product(values, torch.tensor([[[1e-9]], [[1.0]]]), floor=0.25)
    assert float(floored[0]) == pytest.approx(0.2)
    fields = {**PRODUCT, "floor": 0.25}
    found = fuse(values, kind="regression", variances=torch.tensor([[[1e-9]], [[1.0]]]), **fields)
    assert float(found.logits_NC) == pytest.approx(0.2) and float(found.variances_NC or 0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("variances", "message"),
    [
        (VARIANCES[:2], r"`variances` should have the shape of the values, \(3, 40, 2\). Found \(2, 40, 2\)."),
        (-VARIANCES, r"should be > 0 and finite. Found -[01]\.\d+ of member 0 at example 0."),
        (torch.zeros_like(VARIANCES), "Found 0 of member 0 at example 0. Are they standard deviations, or logarithms"),
        (VARIANCES * torch.nan, "Found nan of member 0"),
    ],
)
@pytest.mark.parametrize("fields", [MIXTURE, PRODUCT])
def test_bad_variances(fields: dict[str, Any], variances: torch.Tensor, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        fuse(VALUES, kind="regression", variances=variances, **fields)


def test_methods_and_tasks_without_variances_say_so() -> None:
    with pytest.raises(IncompatibleStrategyError, match=r"median .* without `variances`. Did you mean method=average"):
        fuse(VALUES, kind="regression", variances=VARIANCES, method="median")
    labels = VALUES[0]
    with pytest.raises(IncompatibleStrategyError, match="inverse_variance with these settings fuses values without"):
        fuse(VALUES, kind="regression", variances=VARIANCES, method="inverse_variance", labels=labels)
    with pytest.raises(IncompatibleStrategyError, match="are for kind=regression. Found kind=classification"):
        fuse(VALUES, variances=VARIANCES, method="average")


def test_the_product_needs_variances() -> None:
    with pytest.raises(NeedsContextError, match="variance=predicted needs `variances`. They are missing."):
        fuse(VALUES, kind="regression", **PRODUCT)
    found = fuse(VALUES, kind="regression", variances=VARIANCES, **PRODUCT)
    assert found.weights is None
    with pytest.raises(PredictionError, match="weighs members by their variances. Did you mean its `moments`"):
        found.combiner(VALUES)


def test_a_run_is_refused_before_training() -> None:
    task = Task(name="y", kind="regression", outputs=1)
    message = "needs members that predict variances. Found networks.* Did you mean strategy.variance=residual"
    with pytest.raises(IncompatibleStrategyError, match=message):
        InverseVariance(variance="predicted").check(make_development([task]), describe([task], 2))
    InverseVariance().check(make_development([task]), describe([task], 2))


def test_parts_of_predictions_keep_their_variances() -> None:
    predictions = replace(make_predictions("regression", outputs=2), variances_MNC=VARIANCES)
    part = predictions.at(torch.tensor([3, 1]), predictions.generator)
    assert part.variances_MNC is not None
    assert torch.equal(part.variances_MNC, VARIANCES[:, [3, 1]])
    assert isinstance(Average().combine(part), GaussianMixture)
