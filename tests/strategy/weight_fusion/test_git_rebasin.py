from __future__ import annotations

import pytest
import torch
from torch import nn

import transfuse
from transfuse.alignment import ActivationMatching, Unaligned, WeightMatching
from transfuse.strategy.weight_fusion import Aligned, GitReBasin, LinearMerge
from transfuse.types import HyperparameterError, NeedsContextError


def two(toys):
    data = toys.development()
    return data, [toys.train(toys.network(seed), data.train, seed=seed, steps=60) for seed in range(2)]


def test_is_the_preset_of_aligning_and_averaging(toys) -> None:
    data, members = two(toys)
    context = toys.context(members, data)
    found = GitReBasin(weights=(3.0, 1.0)).apply(context)
    preset = Aligned(inner=LinearMerge(weights=(3.0, 1.0)), matcher=WeightMatching()).apply(context)
    assert isinstance(found.network, nn.Module) and isinstance(preset.network, nn.Module)
    for key, value in preset.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[key], value)
    assert found.weights == {"y": [0.75, 0.25]}
    assert found.diagnostics["align"] == preset.diagnostics["align"]


def test_the_way_to_match_can_be_chosen(toys) -> None:
    data, members = two(toys)
    fused = GitReBasin(align=ActivationMatching(examples=20)).apply(toys.context(members, data))
    assert fused.diagnostics["align"]["matcher"] == "activation_matching"


def test_values_are_checked_when_it_is_made(toys) -> None:
    with pytest.raises(
        HyperparameterError, match=r"`align` should be weight_matching, .*strategy=weight_fusion/linear"
    ):
        GitReBasin(align=Unaligned())  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="`weights` should be finite"):
        GitReBasin(weights=(1.0, float("nan")))
    data, members = two(toys)
    with pytest.raises(HyperparameterError, match="`weights` should have 2 entries"):
        GitReBasin(weights=(1.0,)).check(data, toys.context(members, data).base_models.description)


def test_state_dicts_alone_do_not_suffice() -> None:
    with pytest.raises(NeedsContextError, match="weight_fusion/git_rebasin needs the networks"):
        transfuse.merge([{"w": torch.zeros(2)}] * 2, method="git_rebasin")
