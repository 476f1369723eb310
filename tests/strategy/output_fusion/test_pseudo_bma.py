from __future__ import annotations

import pytest
import torch

from tests.strategy.output_fusion.inputs import make_predictions
from tests.strategy.output_fusion.properties import fresh
from transfuse.strategy.output_fusion import PseudoBMA, fuse
from transfuse.strategy.weights import PseudoBMA as Rule
from transfuse.types import HyperparameterError, IncompatibleStrategyError, TaskKind


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
@pytest.mark.parametrize("fields", [{}, {"samples": 10, "alpha": 2.0}, {"bootstrap": False}])
def test_it_is_the_weighted_average_by_the_rule(kind: TaskKind, fields: dict[str, float]) -> None:
    predictions = make_predictions(kind, members=4)
    combiner = PseudoBMA(**fields).combine(fresh(predictions))  # type: ignore[arg-type]
    expected_M = Rule(**fields).weights(fresh(predictions)).values_M  # type: ignore[arg-type]
    assert combiner.weights is not None
    assert torch.equal(combiner.weights, expected_M)
    average = fuse(predictions.logits_MNC, method="weighted_average", kind=kind, weights=expected_M)
    torch.testing.assert_close(combiner(predictions.logits_MNC), average.logits_NC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 0}, "`samples` should be an integer >= 1. Found `samples = 0`."),
        ({"samples": 2.5}, "`samples` should be an integer >= 1. Found `samples = 2.5`."),
        ({"alpha": 0.0}, "`alpha` should be > 0 and finite. Found `alpha = 0.0`."),
    ],
)
def test_ranges(fields: dict[str, float], message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        PseudoBMA(**fields)  # type: ignore[arg-type]


def test_values_have_no_likelihood() -> None:
    predictions = make_predictions("regression")
    with pytest.raises(IncompatibleStrategyError, match="output_fusion/inverse_variance"):
        fuse(predictions.logits_MNC, method="pseudo_bma", labels=predictions.labels, kind="regression")
