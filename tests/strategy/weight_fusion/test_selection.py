from __future__ import annotations

import pytest
import torch

from transfuse.strategy.weight_fusion import HeadMismatchError, Selection, merge
from transfuse.types import HyperparameterError, StateDictMismatch

KEYS = ["backbone.a.weight", "backbone.a.bias", "heads.y.weight"]


def state(value: float, head: int = 2) -> dict[str, torch.Tensor]:
    return {key: torch.full((head if key.startswith("heads") else 3,), float(value)) for key in KEYS}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, KEYS),
        ({"heads": False}, KEYS[:2]),
        ({"only": ("*.weight",)}, [KEYS[0], KEYS[2]]),
        ({"only": ("*.weight",), "heads": False}, KEYS[:1]),
        ({"skip": ("backbone.*",)}, KEYS[2:]),
        ({"only": ("backbone.*",), "skip": ("*.bias",)}, KEYS[:1]),
    ],
)
def test_patterns(fields, expected) -> None:
    assert Selection(**fields).of(KEYS) == set(expected)


@pytest.mark.parametrize("name", ["only", "skip"])
def test_a_pattern_without_a_match_is_refused(name: str) -> None:
    with pytest.raises(
        HyperparameterError, match=rf"`{name}` should match names of tensors.*backbone.a.weigth.*Did you"
    ):
        merge([state(1), state(3)], method="uniform_soup", **{name: ["backbone.a.weigth"]})


def test_what_is_not_fused_is_the_first_models_without_a_base() -> None:
    merged = merge([state(1), state(3)], method="uniform_soup", skip=["*.bias"])
    assert [merged[key][0].item() for key in KEYS] == [2.0, 1.0, 2.0]


def test_backbone_alone_takes_heads_of_other_sizes_and_names() -> None:
    other = {**state(3, head=5), "heads.z.weight": torch.ones(4)}
    merged = merge([state(1), other], method="uniform_soup", fuse="backbone")
    assert list(merged) == KEYS
    assert [merged[key][0].item() for key in KEYS] == [2.0, 2.0, 1.0]


def test_heads_that_differ_are_told() -> None:
    with pytest.raises(HeadMismatchError, match=r"heads.y.weight.*\(2,\).*\(5,\).*fuse=backbone"):
        merge([state(1), state(3, head=5)], method="uniform_soup")
    with pytest.raises(StateDictMismatch) as caught:
        merge([state(1), {**state(3), "backbone.a.bias": torch.ones(4)}], method="uniform_soup")
    assert not isinstance(caught.value, HeadMismatchError)
