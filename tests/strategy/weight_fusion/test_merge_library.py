from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import transfuse
from transfuse.strategy.weight_fusion.merging import WeightedSum, merge_state_dicts
from transfuse.types import (
    BufferMismatch,
    HyperparameterError,
    NeedsContextError,
    NonFiniteError,
    StateDictError,
    StateDictMismatch,
)

PAIR = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}]


def test_the_mean_of_two() -> None:
    assert transfuse.merge(PAIR, method="uniform_soup")["w"].tolist() == [2.0, 4.0]


def test_arrays_give_tensors() -> None:
    arrays = [{"w": np.array([[1.0, 2.0]], dtype=np.float32)}, {"w": np.array([[3.0, 6.0]], dtype=np.float32)}]
    merged = transfuse.merge(arrays, method="uniform_soup")["w"]
    assert isinstance(merged, torch.Tensor) and merged.dtype == torch.float32 and merged.tolist() == [[2.0, 4.0]]
    merged.zero_()
    assert arrays[0]["w"].tolist() == [[1.0, 2.0]]


def test_a_base_that_is_not_needed_is_not_read() -> None:
    assert transfuse.merge(PAIR, method="uniform_soup", base={"other": torch.zeros(1)})["w"].tolist() == [2.0, 4.0]


def test_unknown_methods_and_fields_are_answered_with_near_names() -> None:
    with pytest.raises(HyperparameterError, match="Did you mean uniform_soup"):
        transfuse.merge(PAIR, method="uniform_soop")
    with pytest.raises(HyperparameterError, match=r"no field 'batchnorm'. Did you mean batch_norm\?"):
        transfuse.merge(PAIR, method="uniform_soup", batchnorm="keep")


def test_reestimation_needs_data() -> None:
    with pytest.raises(NeedsContextError, match="needs training data"):
        transfuse.merge(PAIR, method="uniform_soup", batch_norm="reestimate")


def test_statistics_are_averaged_or_kept() -> None:
    states = [
        {"n.running_mean": torch.tensor([m]), "n.running_var": torch.tensor([v])} for m, v in [(0.0, 1.0), (2.0, 3.0)]
    ]
    averaged = transfuse.merge(states, method="uniform_soup")
    assert (averaged["n.running_mean"].item(), averaged["n.running_var"].item()) == (1.0, 3.0)
    kept = transfuse.merge(states, method="uniform_soup", batch_norm="keep")
    assert (kept["n.running_mean"].item(), kept["n.running_var"].item()) == (0.0, 1.0)


def test_bad_weights_are_named() -> None:
    with pytest.raises(StateDictMismatch, match=r"`w` is \(2,\) in model 0 and \(3,\) in model 1"):
        transfuse.merge([PAIR[0], {"w": torch.zeros(3)}], method="uniform_soup")
    with pytest.raises(NonFiniteError, match="`w` of model 1 has 1 of 2"):
        transfuse.merge([PAIR[0], {"w": torch.tensor([0.0, float("nan")])}], method="uniform_soup")
    with pytest.raises(BufferMismatch, match=r"`ids` .* between model 0 and model 1"):
        transfuse.merge([{"ids": torch.tensor([0])}, {"ids": torch.tensor([1])}], method="uniform_soup")
    with pytest.raises(ValueError, match=r"at least 1 model. Found 0"):
        transfuse.merge([], method="uniform_soup")


def weighted(golden: Path, weights: tuple[float, ...], dtype: torch.dtype) -> tuple[list[dict], dict]:
    inputs = [load_file(golden / f"checkpoint_{model}.safetensors") for model in ("ft1", "ft2", "ft3")]
    states = [{key: value.to(dtype) for key, value in state.items()} for state in inputs]
    return states, merge_state_dicts(WeightedSum(weights_K=weights), states, names=["ft1", "ft2", "ft3"])


@pytest.mark.parametrize(
    ("name", "weights"), [("linear", (0.5 / 1.2, 0.3 / 1.2, 0.4 / 1.2)), ("linear_nonorm", (0.5, 0.3, 0.4))]
)
def test_golden_weighted_sums(golden: Path, name: str, weights: tuple[float, ...]) -> None:
    expected = load_file(golden / f"checkpoint_{name}.safetensors")
    _, merged = weighted(golden, weights, torch.float32)
    assert set(merged) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("name", "dtype", "unit"), [("linear_bf16", torch.bfloat16, 2.0**-7), ("linear_fp16", torch.float16, 2.0**-10)]
)
def test_golden_weighted_sums_of_half_precision(golden: Path, name: str, dtype: torch.dtype, unit: float) -> None:
    expected = load_file(golden / f"checkpoint_{name}.safetensors")
    states, merged = weighted(golden, (0.5 / 1.2, 0.3 / 1.2, 0.4 / 1.2), dtype)
    same, exact, total = 0, 0, 0
    for key, value in expected.items():
        largest = torch.stack([state[key].double().abs() for state in states]).amax(0)
        assert bool(((merged[key].double() - value.double()).abs() <= unit * largest).all()), key
        first, second, third = (state[key].double() for state in states)
        rounded = ((5 * first + 3 * second + 4 * third) / 12).to(dtype)  # the numerator is exact
        same, exact, total = (
            same + int((merged[key] == value).sum()),
            exact + int((merged[key] == rounded).sum()),
            total + value.numel(),
        )
    assert same >= 0.98 * total and exact >= 0.998 * total


def test_merging_loads_no_framework() -> None:
    code = (
        "import sys, torch, transfuse\n"
        "merged = transfuse.merge([{'w': torch.ones(2)}, {'w': torch.zeros(2)}], method='uniform_soup')\n"
        "assert merged['w'].tolist() == [0.5, 0.5]\n"
        "heavy = {'hydra', 'omegaconf', 'mlflow', 'lightning', 'pytorch_lightning', 'torchmetrics', 'sklearn'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import torch, transfuse\n"
        "torch.manual_seed(0)\n"
        "states = [{key: torch.randn(1000) for key in 'abcde'} for _ in range(7)]\n"
        "merged = transfuse.merge(states, method='uniform_soup')\n"
        "print(list(merged), [value.double().sum().item().hex() for value in merged.values()])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (PAIR[0], "`state_dicts` should be a list, one entry a model. Found dict."),
        (None, "`state_dicts` should be a list, one entry a model. Found NoneType."),
        (iter(PAIR), "`state_dicts` should be a list, one entry a model. Found list_iterator. Did you mean list(...)?"),
        ([torch.nn.Linear(1, 1)], "model 0 should be a state dict (key -> tensor). Found Linear. Did you mean its"),
        ([PAIR[0], None], "model 1 should be a state dict (key -> tensor). Found NoneType."),
        ([{"w": torch.zeros(2, device="meta")}], "`w` of model 0 is on the meta device"),
        ([{"w": torch.zeros(2).to_sparse()}], "`w` of model 0 should be a dense tensor."),
        ([{"w": np.zeros(2, dtype=np.longdouble)}], "`w` of model 0 should be numbers that torch can hold."),
    ],
)
def test_what_is_no_list_of_state_dicts_is_refused(states: Any, message: str) -> None:
    with pytest.raises(StateDictError, match=re.escape(message)):
        transfuse.merge(states, method="uniform_soup")


@pytest.mark.parametrize(
    ("values", "dtype"), [((3e38, 3e38), torch.float32), ((6e4, 9e4), torch.float16), ((3e38, 3e38), torch.bfloat16)]
)
def test_a_merge_that_overflows_names_the_key(values: tuple[float, float], dtype: torch.dtype) -> None:
    first, second = values
    states = [
        {"v": torch.ones(1), "w": torch.tensor([first]).to(dtype)},
        {"v": torch.ones(1), "w": torch.tensor([second])},
    ]
    with pytest.raises(NonFiniteError, match="`w` of the merged model has 1 of 1 values .* too large for"):
        transfuse.merge(states, method="uniform_soup")


def test_statistics_that_overflow_are_found() -> None:
    states = [
        {"n.running_mean": torch.tensor([mean]).half(), "n.running_var": torch.ones(1).half()} for mean in (-6e4, 6e4)
    ]
    with pytest.raises(NonFiniteError, match="`n.running_var` of the merged model"):
        transfuse.merge(states, method="uniform_soup")


def test_a_tie_of_the_first_model_alone_is_undone() -> None:
    shared = torch.ones(2)
    tied, untied = {"a": shared, "b": shared}, {"a": torch.zeros(2), "b": 3 * torch.ones(2)}
    for states in ([tied, untied], [untied, tied]):
        merged = transfuse.merge(states, method="uniform_soup")
        assert (merged["a"].tolist(), merged["b"].tolist()) == ([0.5, 0.5], [2.0, 2.0])
        assert merged["a"].data_ptr() != merged["b"].data_ptr()
