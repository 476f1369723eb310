from __future__ import annotations

import math

import pytest

from transfuse.tracking.entries import (
    batches,
    entry_name,
    finite_or_nan,
    flat_params,
    flat_tags,
    model_name,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test/accuracy", "test/accuracy"),
        ("test/task 1/f1_macro", "test/task 1/f1_macro"),
        ("recall@5", "recall_5"),
        ("lr=0.1 (warm)", "lr_0.1 _warm_"),
        ("a//b", "a/b"),
        ("/a/", "a"),
        ("../a", "a"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_hold_only_what_mlflow_takes(name: str, expected: str) -> None:
    assert entry_name(name) == expected


def test_model_names_hold_no_path_or_version_characters() -> None:
    assert model_name("output_fusion/average: v1.0") == "output_fusion-average- v1-0"
    assert model_name("") == "model"


def test_params_are_flat_strings_cut_at_the_limit() -> None:
    config = {
        "seed": 0,
        "strategy": {"_target_": "transfuse.X", "inner": {"top": None, "empty": {}}},
        "models": ["a", "b"],
        "long": "y" * 7000,
    }
    assert flat_params(config) == {
        "seed": "0",
        "strategy._target_": "transfuse.X",
        "strategy.inner.top": "None",
        "strategy.inner.empty": "{}",
        "models": "['a', 'b']",
        "long": "y" * 6000,
    }


def test_tags_are_cut_at_the_limit() -> None:
    assert flat_tags({"transfuse.seed": "1", "note": "z" * 9000}) == {"transfuse.seed": "1", "note": "z" * 8000}


def test_infinities_become_nan_and_numbers_stay() -> None:
    assert finite_or_nan(3) == 3.0
    assert all(math.isnan(finite_or_nan(value)) for value in (math.nan, math.inf, -math.inf))


def test_batches_keep_all_items_in_order() -> None:
    assert list(batches(list(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []
