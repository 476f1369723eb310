from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.strategy.parameter_transfer.cases import problem, start, trained
from transfuse.strategy.parameter_transfer import Lora
from transfuse.training.low_rank import dora_weight, lora_delta
from transfuse.types import HyperparameterError, UnsupportedStructureError


def test_only_updates_and_the_head_are_trained_and_merged(tmp_path: Path) -> None:
    context = problem(tmp_path, lr=0.05)
    source = context.base_models[0].state
    after = trained(Lora(rank=2), context)
    for key, value in after.items():
        if "heads" in key:
            continue
        if value.dim() < 2:
            assert torch.equal(value, source[key]), key  # biases, norms and their statistics
        else:
            assert torch.linalg.matrix_rank((value - source[key]).flatten(1), rtol=1e-4) <= 2, key


@pytest.mark.parametrize("fields", [{}, {"dora": True}, {"scaling": "rank_stabilized"}, {"targets": "stages"}])
def test_at_the_start_it_is_the_source(fields: dict, tmp_path: Path) -> None:
    context = problem(tmp_path)
    adapted, plain = start(Lora(**fields), context).eval(), context.base_models[0].network()
    inputs = context.development.validation.inputs
    torch.testing.assert_close(adapted.backbone(inputs), plain.backbone(inputs), rtol=0, atol=1e-6)
    assert trained(Lora(**fields), context).keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("stem", "fields"), [("lora", {}), ("lora_rslora", {}), ("lora_dora", {"dora": True})])
def test_golden_merged_weights(golden_transfer: Path, stem: str, fields: dict) -> None:
    tensors = load_file(golden_transfer / f"{stem}.safetensors")
    scaling = json.loads((golden_transfer / "lora.json").read_text())[stem.removeprefix("lora_")]["scaling"]
    for layer in ("conv", "fc1", "fc2"):
        weight = tensors[f"base.{layer}.weight"]
        a, b = tensors[f"adapter.{layer}.lora_A"], tensors[f"adapter.{layer}.lora_B"]
        delta = lora_delta(a, b, scaling, weight.shape)
        merged = weight + delta
        if fields:
            merged = dora_weight(weight, delta, tensors[f"adapter.{layer}.lora_magnitude_vector"].flatten())
        torch.testing.assert_close(merged, tensors[f"merged.{layer}.weight"], rtol=0, atol=1e-6)


def test_misfits_are_told(tmp_path: Path) -> None:
    with pytest.raises(HyperparameterError, match="`rank` should be at least 1. Found `rank = 0`"):
        Lora(rank=0)
    with pytest.raises(HyperparameterError, match="`targets` should be a regular expression"):
        Lora(targets="(")
    with pytest.raises(HyperparameterError, match="`scaling` should be standard or rank_stabilized"):
        Lora(scaling="root")
    with pytest.raises(UnsupportedStructureError, match="Found none that match targets=nothing"):
        Lora(targets="nothing").apply(problem(tmp_path))
