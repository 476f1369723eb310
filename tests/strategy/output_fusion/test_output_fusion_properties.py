"""Properties x cases x inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tests.strategy.output_fusion import properties
from tests.strategy.output_fusion.cases import CASES, Case
from tests.strategy.output_fusion.inputs import make_predictions
from transfuse.strategy.output_fusion import OutputFusion
from transfuse.strategy.predictions import Predictions
from transfuse.types import TaskKind

Property = Callable[[OutputFusion, Predictions], None]

GENERAL: list[Property] = [
    properties.assert_valid_logits,
    properties.assert_order_of_members_is_irrelevant,
    properties.assert_classes_permute_with_labels,
    properties.assert_batches_are_irrelevant,
    properties.assert_inputs_are_untouched,
    properties.assert_unused_members_have_no_influence,
    properties.assert_state_dict_holds_the_combiner,
    properties.assert_state_can_be_saved,
]
CASES_AND_KINDS = [
    pytest.param(case, kind, id=f"{case.name}-{kind}") for case in CASES for kind in sorted(case.strategy.kinds)
]


@pytest.mark.parametrize("holds", GENERAL, ids=lambda holds: holds.__name__.removeprefix("assert_"))
@pytest.mark.parametrize(("case", "kind"), CASES_AND_KINDS)
def test_property(case: Case, kind: TaskKind, holds: Property) -> None:
    for members in (1, 2, 7):
        for outputs in (2, 10):
            holds(case.strategy, make_predictions(kind, members=members, outputs=outputs))


@pytest.mark.parametrize(("case", "kind"), [case for case in CASES_AND_KINDS if case.values[0].convex])
def test_identical_members_give_that_member(case: Case, kind: TaskKind) -> None:
    for outputs in (2, 10):
        properties.assert_identical_members_give_that_member(case.strategy, make_predictions(kind, outputs=outputs))


@pytest.mark.parametrize(("case", "kind"), [case for case in CASES_AND_KINDS if case.values[0].simplex])
def test_weights_are_on_the_simplex(case: Case, kind: TaskKind) -> None:
    for members in (1, 2, 7):
        properties.assert_weights_are_on_the_simplex(case.strategy, make_predictions(kind, members=members))


@pytest.mark.parametrize(("case", "kind"), CASES_AND_KINDS)
def test_single_precision_is_kept(case: Case, kind: TaskKind) -> None:
    predictions = make_predictions(kind, dtype=torch.float32)
    properties.assert_valid_logits(case.strategy, predictions)
    double = replace(predictions, logits_MNC=predictions.logits_MNC.double())
    properties.close(
        properties.fused(case.strategy, predictions), properties.fused(case.strategy, double), tolerance=1e-5
    )


@pytest.mark.parametrize(("case", "kind"), CASES_AND_KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_members_that_are_certain(case: Case, kind: TaskKind, dtype: torch.dtype) -> None:
    predictions = make_predictions(kind, members=3, dtype=dtype)
    certain = predictions.logits_MNC.clone()
    certain[0] *= 1e4
    properties.assert_valid_logits(case.strategy, replace(predictions, logits_MNC=certain))
