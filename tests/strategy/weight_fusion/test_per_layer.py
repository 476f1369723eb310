from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from transfuse.strategy.weight_fusion import Slerp, UniformSoup, merge
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.strategy.weight_fusion.per_layer import PerTensor, canonical, numbers, resolve
from transfuse.types import HyperparameterError

LAYERS = [f"model.layers.{layer}.{part}.weight" for layer in range(5) for part in ("self_attn.q_proj", "mlp.up_proj")]
KEYS = ["lm_head.weight", "model.embed_tokens.weight", *LAYERS, "model.norm.weight"]


def resolved(value: Any, keys: list[str] = KEYS) -> dict[str, float]:
    return resolve(canonical(value, "t"), keys, "t")


def test_a_number_is_for_all() -> None:
    assert resolved(0.3) == dict.fromkeys(KEYS, 0.3)
    assert resolved([0.3]) == dict.fromkeys(KEYS, 0.3)


@pytest.mark.parametrize(
    ("anchors", "expected"),
    [
        ([0.0, 1.0], [0, 0.25, 0.5, 0.75, 1]),
        ([0.0, 1.0, 0.0], [0, 0.5, 1, 0.5, 0]),
        ([1, 0.5, 0.5], [1, 0.75, 0.5, 0.5, 0.5]),
    ],
)
def test_anchors_are_a_piecewise_linear_function_of_depth(anchors: list[float], expected: list[float]) -> None:
    found = resolved(anchors)
    for layer, value in enumerate(expected):
        assert found[f"model.layers.{layer}.self_attn.q_proj.weight"] == pytest.approx(value, abs=1e-15)
    assert found["model.embed_tokens.weight"] == anchors[0]
    assert found["model.norm.weight"] == found["lm_head.weight"] == anchors[-1]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("backbone.stem.0.weight", 0.0),
        ("backbone.stem.position_embedding", 0.0),
        ("transformer.wte.weight", 0.0),
        ("vision.pre_layrnorm.weight", 0.0),
        ("shared.weight", 0.0),
        ("backbone.neck.norm.bias", 1.0),
        ("heads.y.linear.weight", 1.0),
        ("heads.y.2.weight", 1.0),
        ("transformer.ln_f.weight", 1.0),
        ("encoder.final_layer_norm.weight", 1.0),
        ("fc.bias", 1.0),
        ("classifier.weight", 1.0),
    ],
)
def test_names_without_a_layer_come_first_or_last(key: str, expected: float) -> None:
    assert resolved([0.0, 1.0], [key, "backbone.stages.0.w", "backbone.stages.1.w"])[key] == expected


def test_the_order_of_tensors_does_not_matter() -> None:
    found = resolved([0.1, 0.4, 0.9])
    assert resolved([0.1, 0.4, 0.9], KEYS[::-1]) == found


def test_each_prefix_has_a_depth_of_its_own_and_the_first_number_counts() -> None:
    keys = ["encoder.block.0.layer.1.w", "encoder.block.2.layer.0.w", "decoder.block.1.w", "0.weight", "4.weight"]
    assert list(resolved([0.0, 1.0], keys).values()) == [0.0, 1.0, 1.0, 0.0, 1.0]


def test_the_first_filter_that_matches_gives_the_value() -> None:
    filters = [
        {"filter": "self_attn", "value": [0.0, 0.5, 1.0]},
        {"filter": "*.layers.[01].*", "value": 0.3},
        {"value": 0.7},
    ]
    found = resolved(filters)
    assert found["model.layers.1.self_attn.q_proj.weight"] == 0.25
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.3
    assert found["model.layers.2.mlp.up_proj.weight"] == found["lm_head.weight"] == 0.7


def test_filters_are_parts_of_names_or_patterns_for_whole_names() -> None:
    assert resolved([{"filter": "a.b", "value": 1.0}, {"value": 0.0}], ["x.a.b.c", "a"]) == {"x.a.b.c": 1.0, "a": 0.0}
    with pytest.raises(HyperparameterError, match=r"Found `a\.\?`, which matches none"):
        resolved([{"filter": "a.?", "value": 1.0}, {"value": 0.0}], ["x.a.b.c", "a"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("high", "`t` should be a number, a list of numbers, or a list of filters"),
        (True, "`t` should be a number"),
        (float("nan"), "`t` should be a number"),
        ([], "`t` should be a number"),
        ([0.0, "x"], r"`t` should hold finite numbers. Found `t = \[0.0, 'x'\]`"),
        ([{"value": []}], "`t` should hold finite numbers"),
        ([{"filter": "mlp"}], "`t` should hold filters with the keys filter and value"),
        ([{"fliter": "mlp", "value": 0.5}], "`t` should hold filters with the keys filter and value"),
        ([{"filter": "mlp", "value": 0.5}, 0.5], "`t` should hold filters"),
        ([{"filter": 3, "value": 0.5}], "`t` should have a text as filter"),
        ([{"value": 0.5}, {"filter": "mlp", "value": 0.5}], "`t` should have a filter in all entries but the last"),
    ],
)
def test_other_forms_are_refused(value: Any, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        canonical(value, "t")


def test_a_filter_that_matches_nothing_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="Found `lm_haed.weight`, which matches none. Did you mean lm_head.w"):
        resolved([{"filter": "lm_haed.weight", "value": 0.5}, {"value": 0.1}])


def test_a_name_that_no_filter_matches_is_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"No filter of `t` matches `lm_head.weight`. Add a last entry"):
        resolved([{"filter": "layers", "value": 0.5}])


@pytest.mark.parametrize("keys", [["a.weight"], ["layers.0.w"], ["layers.0.w", "layers.1.w", "gate"]])
def test_a_list_where_depth_is_unknown_is_refused(keys: list[str]) -> None:
    with pytest.raises(HyperparameterError, match=rf"depth of `{keys[-1]}` is unknown.*filter: {keys[-1]}"):
        resolved([0.0, 1.0], keys)
    assert resolved([{"filter": keys[-1], "value": 0.2}, {"value": [0.0, 1.0]}], keys)[keys[-1]] == 0.2


def test_all_numbers_are_found() -> None:
    assert numbers(canonical([{"filter": "a", "value": [0, 1]}, {"value": 2}], "t")) == [0, 1, 2]
    assert numbers(canonical([0, 1], "t")) == [0, 1] and numbers(canonical(3, "t")) == [3.0]


def test_each_tensor_has_its_method_whatever_the_blocks() -> None:
    stream = torch.Generator().manual_seed(0)
    states = [{key: torch.randn(9, generator=stream) for key in ("a", "b")} for _ in range(2)]
    method = PerTensor(methods={"a": UniformSoup(), "b": Slerp(t=0.25)})
    merged = merge_state_dicts(replace(method), states, names=["0", "1"], size=4)
    assert torch.equal(merged["a"], merge(states, method="uniform_soup")["a"])
    assert torch.equal(merged["b"], merge(states, method="slerp", t=0.25)["b"])
    assert method.bind([]) is method
