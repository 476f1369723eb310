from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, networks
from transfuse.strategy.weight_fusion import ModelCountError, Slerp, merge
from transfuse.types import HyperparameterError


def vectors(seed: int, size: int = 50) -> list[dict[str, torch.Tensor]]:
    stream = np.random.default_rng(seed)
    return [{"w": torch.from_numpy(stream.normal(size=size))} for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "first", "second", "t"),
    [("slerp_t03", "ft1", "ft2", 0.3), ("slerp_base_t05", "base", "ft2", 0.5)],
)
def test_golden(golden: Path, name: str, first: str, second: str, t: float) -> None:
    states = [load_file(golden / f"checkpoint_{model}.safetensors") for model in (first, second)]
    merged = merge(states, method="slerp", t=t)
    for key, value in load_file(golden / f"checkpoint_{name}.safetensors").items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("name", "t"),
    [
        (
            "slerp_gradient",
            [
                {"filter": "self_attn", "value": [0, 1]},
                {"filter": "mlp", "value": [1, 0]},
                {"value": 0.5},
            ],
        ),
        # the peer gives the first anchor to what comes after the layers, too
        (
            "slerp_gradient_plain",
            [
                {"filter": "model.norm", "value": 0.1},
                {"filter": "lm_head", "value": 0.1},
                {"value": [0.1, 0.4, 0.9]},
            ],
        ),
        # its slices are filters here: a slice of one layer takes the last anchor
        (
            "slerp_slices",
            [
                {"filter": "embed_tokens", "value": 0.3},
                {"filter": "layers.0.", "value": 0.3},
                {"filter": "layers.1.", "value": 0.9},
                {"value": 0.1},
            ],
        ),
    ],
)
def test_golden_with_a_t_for_each_layer(golden: Path, name: str, t: list[dict[str, Any]]) -> None:
    (first, second, _), _ = checkpoints(golden)
    assert_golden(merge([first, second], method="slerp", t=t), golden / f"checkpoint_{name}.safetensors", 2e-7)


@pytest.mark.parametrize("t", ["0.0", "0.3", "0.5", "1.0"])
@pytest.mark.parametrize(("tag", "atol"), [("f64", 1e-12), ("f32", 5e-6)])
def test_golden_of_another_peer(golden: Path, tag: str, atol: float, t: str) -> None:
    models, _ = networks(golden, tag)
    assert_golden(merge(models[:2], method="slerp", t=float(t)), golden / f"slerp_t{t}_{tag}.safetensors", atol)


def test_golden_in_bfloat16(golden: Path) -> None:
    states = [load_file(golden / f"checkpoint_{model}.safetensors") for model in ("ft1", "ft2")]
    halves = [{key: value.bfloat16() for key, value in state.items()} for state in states]
    merged = merge(halves, method="slerp", t=0.3)
    equal = total = 0
    for key, value in load_file(golden / "checkpoint_slerp_t03_bf16.safetensors").items():
        largest = torch.maximum(halves[0][key].float().abs(), halves[1][key].float().abs())
        assert bool(((merged[key].float() - value.float()).abs() <= 2**-8 * largest + 1e-12).all()), key
        equal += int((merged[key] == value).sum())
        total += value.numel()
    assert equal / total >= 0.98


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_the_angle_grows_with_t(t: float) -> None:
    states = vectors(0)
    states = [{"w": state["w"] / state["w"].norm()} for state in states]
    merged = merge(states, method="slerp", t=t)["w"]
    theta = torch.acos(states[0]["w"] @ states[1]["w"])
    assert torch.cos(t * theta).item() == pytest.approx((merged @ states[0]["w"]).item(), abs=1e-12)
    assert merged.norm().item() == pytest.approx(1.0, abs=1e-12)


def test_parallel_and_opposite_vectors_take_the_line() -> None:
    first = {"w": torch.tensor([1.0, 2.0])}
    for factor in (1.0, 3.0, -1.0):
        merged = merge([first, {"w": factor * first["w"]}], method="slerp", t=0.25)["w"]
        torch.testing.assert_close(merged, first["w"] * (0.75 + 0.25 * factor))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_are_the_models(t: float) -> None:
    states = vectors(1)
    assert torch.equal(merge(states, method="slerp", t=t)["w"], states[int(t)]["w"])


@pytest.mark.parametrize("gap", [1e-12, 1e-8, 1e-4])
def test_nearly_parallel_vectors_keep_their_digits(gap: float) -> None:
    theta = np.arccos(1 - gap)
    states = [{"w": torch.eye(2, dtype=torch.float64)[0]}, {"w": torch.tensor([np.cos(theta), np.sin(theta)])}]
    merged = merge(states, method="slerp", t=0.3, lerp_above=1.0)["w"]
    np.testing.assert_allclose(merged, [np.cos(0.3 * theta), np.sin(0.3 * theta)], rtol=1e-9)


def test_the_angle_to_zeros_is_a_right_one() -> None:
    states = [{"w": torch.zeros(2)}, {"w": torch.tensor([2.0, 0.0])}]
    torch.testing.assert_close(merge(states, method="slerp", t=0.5)["w"], torch.tensor([2.0**0.5, 0.0]))


def test_beyond_the_models() -> None:
    states = [{"w": torch.eye(2)[0]}, {"w": torch.eye(2)[1]}]
    merged = merge(states, method="slerp", t=1.5, extrapolate=True)["w"]
    torch.testing.assert_close(merged, torch.tensor([-(0.5**0.5), 0.5**0.5]))


def test_t_may_differ_between_layers() -> None:
    states = [
        {f"layers.{layer}.w": value.clone() for layer in range(3)} for value in (torch.eye(2)[0], torch.eye(2)[1])
    ]
    merged = merge(states, method="slerp", t=[0.0, 1.0])
    assert torch.equal(merged["layers.0.w"], states[0]["layers.0.w"])
    torch.testing.assert_close(merged["layers.1.w"], torch.full((2,), 0.5**0.5))
    torch.testing.assert_close(merged["layers.2.w"], states[1]["layers.2.w"])


def test_filters_by_name() -> None:
    states = [{"a.w": torch.eye(2)[0], "b.w": torch.eye(2)[0]}, {"a.w": torch.eye(2)[1], "b.w": torch.eye(2)[1]}]
    merged = merge(states, method="slerp", t=[{"filter": "a.", "value": 1.0}, {"value": 0.0}])
    torch.testing.assert_close(merged["a.w"], torch.eye(2)[1])
    assert torch.equal(merged["b.w"], torch.eye(2)[0])
    with pytest.raises(HyperparameterError, match="attn"):
        merge(states, method="slerp", t=[{"filter": "attn", "value": 1.0}, {"value": 0.0}])


def test_bad_input() -> None:
    with pytest.raises(HyperparameterError, match=r"`t` should be in \[0, 1\]. Found `t = 1.7`"):
        Slerp(t=1.7)
    with pytest.raises(HyperparameterError, match="`lerp_above` should be in"):
        Slerp(lerp_above=1.5)
    with pytest.raises(ModelCountError, match="exactly 2 models. Found 3"):
        merge([*vectors(0), vectors(1)[0]], method="slerp")
    with pytest.raises(HyperparameterError, match=r"Found `t = -0.5`"):
        Slerp(t=({"filter": "mlp", "value": (0.0, -0.5)}, {"value": 0.5}))
