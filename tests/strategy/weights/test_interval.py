from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.properties import fresh
from transfuse.randomness import make_generator
from transfuse.strategy.weights import NllOptimal, Uniform, weights_interval
from transfuse.types import HyperparameterError


def test_equals_quantiles_of_refits() -> None:
    predictions = make_predictions("classification", members=3)
    low_M, high_M = weights_interval(NllOptimal(), fresh(predictions), samples=40, level=0.8)
    generator = make_generator("properties")
    refits = []
    for _ in range(40):
        index = torch.randint(40, (40,), generator=generator)
        drawn = replace(predictions, logits_MNC=predictions.logits_MNC[:, index], labels=predictions.truth[index])
        refits.append(NllOptimal().weights(drawn).values_M.numpy())
    np.testing.assert_allclose(low_M.numpy(), np.quantile(refits, 0.1, axis=0), atol=1e-9)
    np.testing.assert_allclose(high_M.numpy(), np.quantile(refits, 0.9, axis=0), atol=1e-9)


def test_it_holds_the_fitted_weights_and_narrows_with_examples() -> None:
    widths = []
    for examples in (40, 4000):
        predictions = make_predictions("classification", members=3, examples=examples)
        fitted_M = NllOptimal().weights(predictions).values_M
        low_M, high_M = weights_interval(NllOptimal(), predictions, samples=50)
        assert ((low_M <= fitted_M) & (fitted_M <= high_M)).all()
        widths.append(float((high_M - low_M).max()))
    assert widths[1] < 0.3 * widths[0]


def test_a_rule_without_data_has_no_width() -> None:
    low_M, high_M = weights_interval(Uniform(), make_predictions("regression", members=4), samples=2)
    assert low_M.tolist() == high_M.tolist() == [0.25] * 4


@pytest.mark.parametrize(("field", "value"), [("samples", 1), ("level", 1.0), ("level", 0.0)])
def test_ranges(field: str, value: float) -> None:
    with pytest.raises(HyperparameterError, match=f"`{field}` should be"):
        weights_interval(Uniform(), make_predictions("regression"), **{field: value})  # type: ignore[arg-type]
