from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.strategy.weight_fusion.task_vector_inputs import assert_golden, checkpoints, networks, random_models
from transfuse.strategy.weight_fusion import MagMax, TaskArithmetic, Ties, merge
from transfuse.strategy.weight_fusion.merging import merge_state_dicts
from transfuse.types import HyperparameterError, MissingBaseError

WEIGHTS = (0.5, 0.3, 0.4)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ties_d05", {}),
        ("ties_d05_equal", {"weights": None}),
        ("ties_lambda07", {"scale": 0.7}),
        ("ties_mixed_density", {"density": [0.3, 0.5, 0.9]}),
        ("ties_nonorm", {"merge": "sum"}),
        ("ties_rescale", {"rescale": "l1"}),
    ],
)
def test_golden_per_tensor(golden: Path, name: str, fields: dict[str, Any]) -> None:
    models, base = checkpoints(golden)
    merged = merge(models, method="ties", base=base, **{"density": 0.5, "weights": WEIGHTS, **fields})
    assert_golden(merged, golden / f"checkpoint_{name}.safetensors", atol=2e-7)


@pytest.mark.parametrize(("name", "share"), [("20", 0.2), ("50", 0.5), ("0.7", 0.7)])
@pytest.mark.parametrize(
    ("merge", "tag", "atol"),
    [("sum", "f64", 1e-12), ("mean", "f64", 1e-12), ("max", "f64", 1e-12), ("mean", "f32", 5e-6)],
)
def test_golden_per_model(golden: Path, name: str, share: float, merge, tag: str, atol: float) -> None:
    models, base = networks(golden, tag)
    num_elements = sum(value.numel() for value in base.values())
    density = (int(num_elements * share) + 1) / num_elements
    method = Ties(density=density, scope="model", merge=merge, scale=0.3)
    assert_golden(method.merged(models, base), golden / f"ties_model_{name}_{merge}_{tag}.safetensors", atol)


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_blocks_change_no_bit(golden: Path, scope, size: int) -> None:
    models, base = networks(golden, "f32")
    method, names = Ties(scope=scope, rescale="l1"), ["a", "b", "c"]
    whole = merge_state_dicts(method, models, names=names, base=base)
    cut = merge_state_dicts(method, models, names=names, base=base, size=size)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 0.999, 1.0])
def test_exactly_k_are_kept(density: float, dtype: torch.dtype) -> None:
    for size in (1, 2, 7, 99, 100, 101, 70_001):
        # multiples of 1/8: heavy ties, nothing is lost by adding the base
        deltas = torch.randint(1, 6, (size,), generator=torch.Generator().manual_seed(size)) / 8
        merged = Ties(density=density).merged([{"w": deltas.to(dtype)}], {"w": torch.zeros(size, dtype=dtype)})["w"]
        expected = np.zeros(size, dtype=bool)
        expected[np.argsort(-deltas.numpy(), kind="stable")[: max(1, int(density * size))]] = True
        assert ((merged != 0).numpy() == expected).all()
        assert torch.equal(merged[expected].float(), deltas[expected])


def test_of_equal_magnitudes_over_tensors_the_first_are_kept() -> None:
    model, base = {"a": torch.ones(3), "b": -torch.ones(3)}, {"a": torch.zeros(3), "b": torch.zeros(3)}
    merged = Ties(density=4 / 6, scope="model").merged([model], base)
    assert (merged["a"].tolist(), merged["b"].tolist()) == ([1.0, 1.0, 1.0], [-1.0, 0.0, 0.0])
    for density, kept in ((0.5, 1), (1.0, 3)):
        assert int((Ties(density=density).merged([model], base)["b"] != 0).sum()) == kept


def test_the_merged_sign_is_elected_and_means_stay_inside() -> None:
    models, base = random_models(4, 2000)
    deltas = torch.stack([model["w"] - base["w"] for model in models])
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=torch.float64)
    merged = Ties(density=1.0, weights=weights.tolist()).merged(models, base)["w"] - base["w"]
    assert bool((merged.sign() == (weights[:, None] * deltas).sum(0).sign()).all())
    assert bool((merged.abs() <= deltas.abs().amax(0) + 1e-12).all())
    largest = Ties(density=1.0, merge="max").merged(models, base)["w"] - base["w"]
    agreeing = torch.where(deltas.sign() == deltas.sum(0).sign(), deltas.abs(), 0.0)
    torch.testing.assert_close(largest.abs(), agreeing.amax(0), rtol=1e-12, atol=1e-14)


def test_limits() -> None:
    models, base = random_models(3, 501)
    assert torch.equal(Ties(scale=0.0).merged(models, base)["w"], base["w"])
    assert torch.equal(Ties().merged([base] * 3, base)["w"], base["w"])
    one = Ties(density=1.0).merged(models[:1], base)["w"]
    torch.testing.assert_close(one, models[0]["w"], rtol=1e-12, atol=1e-14)
    # where all task vectors have one sign, the sum without trimming is task arithmetic, the largest is MagMax
    upward = [{"w": base["w"] + (model["w"] - base["w"]).abs()} for model in models]
    for fields, other in (({"merge": "sum"}, TaskArithmetic()), ({"merge": "max"}, MagMax(scale=1.0))):
        found = Ties(density=1.0, **fields).merged(upward, base)["w"]
        torch.testing.assert_close(found, other.merged(upward, base)["w"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(golden: Path, dtype: torch.dtype) -> None:
    models, base = checkpoints(golden, dtype)
    merged = merge(models, method="ties", base=base, density=0.5, weights=WEIGHTS)
    wide = [{key: value.double() for key, value in state.items()} for state in [*models, base]]
    exact = merge(wide[:3], method="ties", base=wide[3], density=0.5, weights=WEIGHTS)
    same = torch.cat([(merged[key] == exact[key].to(dtype)).reshape(-1) for key in merged])
    assert same.double().mean() >= 0.998


def test_bad_fields_are_refused() -> None:
    models, base = random_models(2, 3)
    for fields, message in (
        ({"density": 0.0}, r"`density` should be in \(0, 1\]. Found `density = 0.0`."),
        ({"density": 1.2}, r"Found `density = 1.2`."),
        ({"density": (0.5, -1.0)}, r"Found `density = -1.0`."),
        ({"density": float("nan")}, r"Found `density = nan`."),
        ({"scope": "layer"}, "`scope` should be tensor or model. Found `scope = layer`."),
        ({"rescale": "l2"}, "`rescale` should be none or l1. Found `rescale = l2`."),
        ({"merge": "median"}, "`merge` should be mean, sum or max."),
        ({"scale": -1.0}, "`scale` should be a number >= 0 or search."),
        ({"density": (0.1, 0.2, 0.3)}, r"`density` should be one number or have 2 entries \(one a model\). Found 3."),
    ):
        with pytest.raises(HyperparameterError, match=message):
            merge(models, method="ties", base=base, **fields)
    with pytest.raises(MissingBaseError, match="needs the weights that all models started from"):
        merge(models, method="ties")


def test_densities_are_counted_before_anything_is_trained(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(2, data)
    pool = toys.context(members, data, start).base_models.description
    Ties(density=(0.2, 0.3)).check(data, pool)
    with pytest.raises(HyperparameterError, match="`density` should be one number or have 2 entries"):
        Ties(density=(0.2,)).check(data, pool)


def test_the_scale_is_searched_on_validation(toys) -> None:
    data = toys.development()
    start, members = toys.finetuned(3, data)
    fused = Ties(scale="search", grid=(0.0, 0.5, 1.0)).apply(toys.context(members, data, start))
    tried = fused.diagnostics["search"]["tried"]
    assert [entry["scale"] for entry in tried] == [0.0, 0.5, 1.0] and fused.looks == 3
    assert fused.diagnostics["search"]["taken"]["scale"] == min(tried, key=lambda entry: entry["score"])["scale"]


def test_tensors_of_several_types_are_ranked_together() -> None:
    stream = np.random.default_rng(5)
    drawn = {"a": (40, torch.float64), "b": (60, torch.float32), "c": (36, torch.bfloat16)}
    model = {key: torch.from_numpy(stream.normal(size=size)).to(dtype) for key, (size, dtype) in drawn.items()}
    base = {key: torch.zeros_like(value) for key, value in model.items()}
    merged = Ties(scope="model", density=0.5).merged([model], base)
    kept = np.concatenate([merged[key].double().numpy() != 0 for key in model])
    magnitudes = np.concatenate([value.double().abs().numpy() for value in model.values()])
    expected = np.zeros(136, dtype=bool)
    expected[np.argsort(-magnitudes, kind="stable")[:68]] = True
    assert kept.sum() == 68 and (kept == expected).all()
