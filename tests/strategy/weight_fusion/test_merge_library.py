from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    with pytest.raises(BufferMismatch, match="`ids` .* between model 0 and model 1"):
        transfuse.merge([{"ids": torch.tensor([0])}, {"ids": torch.tensor([1])}], method="uniform_soup")
    with pytest.raises(ValueError, match="at least 1 model. Found 0"):
        transfuse.merge([], method="uniform_soup")


@pytest.mark.parametrize(
    ("name", "weights", "divisor", "dtype"),
    [
        ("linear", (0.5, 0.3, 0.4), 1.2, torch.float32),
        ("linear_nonorm", (0.5, 0.3, 0.4), 1.0, torch.float32),
        ("linear_bf16", (0.5, 0.3, 0.4), 1.2, torch.bfloat16),
        ("linear_fp16", (0.5, 0.3, 0.4), 1.2, torch.float16),
    ],
)
def test_golden_weighted_sums(golden: Path, name: str, weights: tuple[float, ...], divisor: float, dtype) -> None:  # noqa: ANN001
    inputs = [load_file(golden / f"checkpoint_{model}.safetensors") for model in ("ft1", "ft2", "ft3")]
    states = [{key: value.to(dtype) for key, value in state.items()} for state in inputs]
    expected = load_file(golden / f"checkpoint_{name}.safetensors")
    merged = merge_state_dicts(WeightedSum(weights_K=weights, divisor=divisor), states, names=["ft1", "ft2", "ft3"])
    assert set(merged) == set(expected)
    equal, total = 0, 0
    for key, value in expected.items():
        assert merged[key].dtype == value.dtype
        if dtype == torch.float32:
            torch.testing.assert_close(merged[key], value, rtol=0, atol=2e-7)
            continue
        largest = torch.stack([state[key].abs() for state in inputs]).amax(0)
        unit = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
        assert bool(((merged[key].float() - value.float()).abs() <= unit * largest + 1e-30).all()), key
        equal, total = equal + int((merged[key] == value).sum()), total + value.numel()
    assert dtype == torch.float32 or equal >= 0.98 * total


def test_merging_loads_no_framework() -> None:
    code = (
        "import sys, torch, transfuse\n"
        "merged = transfuse.merge([{'w': torch.ones(2)}, {'w': torch.zeros(2)}], method='uniform_soup')\n"
        "assert merged['w'].tolist() == [0.5, 0.5]\n"
        "heavy = {'hydra', 'omegaconf', 'mlflow', 'lightning', 'pytorch_lightning', 'torchmetrics', 'sklearn', 'pandas'}\n"
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
