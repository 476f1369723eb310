from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from transfuse.strategy.find import build, find
from transfuse.strategy.output_fusion import Average, WeightedAverage
from transfuse.strategy.weights import Given, LeastSquaresOptimal, NllOptimal, Score
from transfuse.types import HyperparameterError


@pytest.mark.parametrize(
    ("family", "stem", "expected"),
    [
        ("output_fusion", "average", Average),
        ("output_fusion", "weighted_average", WeightedAverage),
        ("weights", "given", Given),
        ("weights", "score", Score),
        ("weights", "nll_optimal", NllOptimal),
        ("weights", "least_squares_optimal", LeastSquaresOptimal),
    ],
)
def test_a_stem_is_a_class(family: str, stem: str, expected: type) -> None:
    assert find(family, stem) is expected


@pytest.mark.parametrize("stem", ["base", "combiner", "pools", "library", "fused", "Average", ""])
def test_modules_without_a_method_are_not_found(stem: str) -> None:
    with pytest.raises(HyperparameterError, match="output_fusion has no method"):
        find("output_fusion", stem)


def test_nearest_names() -> None:
    with pytest.raises(HyperparameterError, match=r"Did you mean weighted_average"):
        find("output_fusion", "weighted_averag")


def test_fields_are_set() -> None:
    assert build("weights", "nll_optimal", {"shrink": 0.5}) == NllOptimal(shrink=0.5)


def test_methods_without_fields_say_so() -> None:
    with pytest.raises(HyperparameterError, match=r"weights/uniform has no field 'power'\. It has none\."):
        build("weights", "uniform", {"power": 1})


@pytest.mark.parametrize(("stem", "field"), [("trimmed_mean", "trim"), ("stacking", "penalty")])
def test_text_for_a_number_is_refused(stem: str, field: str) -> None:
    with pytest.raises(
        HyperparameterError, match=f"A field of output_fusion/{stem} has a wrong type .* {field} = 'many'"
    ):
        build("output_fusion", stem, {field: "many"})


MODULES = ["cross_fit", "find", "predictions", "output_fusion.library", "output_fusion.pools"] + [
    f"weights.{stem}"
    for stem in ("uniform", "score", "softmax_score", "inverse_loss", "nll_optimal", "least_squares_optimal")
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    found = importlib.import_module(f"transfuse.strategy.{module}")
    failed, attempted = doctest.testmod(found, extraglobs={"torch": torch})
    assert attempted > 0
    assert failed == 0
